import { cp, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { enhance } from '../../src/client/client.js';
import { convertToGguf } from '../../src/enhancer/qwen/convert.js';
import { InferenceError } from '../../src/errors.js';
import type { JobEvent } from '../../src/gen/darkroom/v1/event.js';
import type { EnhanceRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { type Job, JobState, JobType, OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import { type Model, ModelState } from '../../src/gen/darkroom/v1/model_service.js';
import { isAlive, kinds, metadataOf, modelsOf, outcomeOf, type Serving, serve } from '../support/serving.js';

let cacheFolder: string;
let gguf: string;
let serving: Serving;
beforeAll(async () => {
  cacheFolder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  ({ path: gguf } = await convertToGguf(inject('tinyQwen'), { cacheFolder }));
  serving = await serveQwen();
});
afterAll(async () => {
  await serving.stop();
  await rm(cacheFolder, { recursive: true });
});

const serveQwen = (
  variables: Parameters<typeof serve>[0] = {},
  options: Parameters<typeof serve>[1] = {},
): Promise<Serving> =>
  serve(
    { WAN_PATH: inject('tinyWan'), QWEN_PATH: gguf, ENGINE_THREADS: '1', MEMORY_RESERVE_BYTES: '0', ...variables },
    options,
  );

const PROMPT = 'a lighthouse on a cliff';
const asked = { prompt: PROMPT, maxTokens: 24, seed: 4n };
/** An enhanced picture of milliseconds. */
const picture = {
  prompt: PROMPT,
  jobType: JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED,
  width: 64,
  height: 64,
  steps: 2,
  seed: 5n,
};

interface EnhanceOutcome {
  readonly events: readonly JobEvent[];
  readonly prompt: string;
  readonly strategy: string;
  readonly error: InferenceError | undefined;
}

async function outcome(
  { client }: Serving,
  request: Partial<EnhanceRequest> = {},
  onEvent: (event: JobEvent) => void = () => undefined,
): Promise<EnhanceOutcome> {
  const events: JobEvent[] = [];
  let [prompt, strategy] = ['', ''];
  try {
    for await (const response of enhance(client, { ...asked, ...request })) {
      if (response.event === undefined) continue;
      events.push(response.event);
      onEvent(response.event);
      prompt = response.enhancedPrompt;
      strategy = response.strategy;
    }
  } catch (error) {
    return { events, prompt, strategy, error: InferenceError.from(error) };
  }
  return { events, prompt, strategy, error: undefined };
}

/** Kinds of events, each once where it repeats. */
const course = (events: readonly JobEvent[]) => kinds(events).filter((kind, i, all) => kind !== all[i - 1]);

const call = <Response>(ask: (done: (error: Error | null, response: Response) => void) => void): Promise<Response> =>
  new Promise((resolve, reject) => ask((error, response) => (error ? reject(error) : resolve(response))));
const modelOf = async (server: Serving): Promise<Model | undefined> =>
  (await modelsOf(server)).find(({ family }) => family === 'qwen');

async function withServer<T>(starting: Promise<Serving>, use: (other: Serving) => Promise<T>): Promise<T> {
  const other = await starting;
  return use(other).finally(() => other.stop());
}

describe('Enhance', () => {
  it('loads the model with the first call, and says so; streams the text, then the whole', async () => {
    await withServer(serveQwen(), async (other) => {
      expect((await modelOf(other))?.state).toBe(ModelState.MODEL_STATE_UNLOADED);
      const { events, prompt, strategy, error } = await outcome(other);
      expect(error).toBeUndefined();
      expect(course(events)).toEqual(['queued', 'modelLoading', 'started', 'textDelta', 'completed']);
      expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, i) => BigInt(i + 1)));
      const { event } = events.at(-1) ?? {};
      if (event?.$case !== 'completed') throw new Error('not completed');
      const { metadata } = event.value;
      expect(strategy).toBe('qwen');
      expect(prompt).not.toBe('');
      expect(metadata).toMatchObject({
        model: 'qwen',
        seed: 4n,
        originalPrompt: PROMPT,
        enhancedPrompt: prompt,
        enhancementStrategy: 'qwen',
        enhancement: { model: 'qwen', device: 'cpu', newTokens: 24, droppedTokens: 0, reachedMaxTokens: true },
      });
      expect(metadata?.enhancement?.waitSeconds).toBeGreaterThan(0);
      expect(await modelOf(other)).toMatchObject({
        state: ModelState.MODEL_STATE_READY,
        storage: 'Q8_0',
        device: 'cpu',
      });
      expect(course((await outcome(other)).events)).toEqual(['queued', 'started', 'textDelta', 'completed']);
    });
  });

  it('takes a job id as idempotency key, also beside Generate', async () => {
    // Drawn seeds, and at temperature 0 no text that is empty by chance.
    const once = { jobId: 'enhance-once', seed: undefined, temperature: 0 };
    const first = await outcome(serving, once);
    expect(await outcome(serving, once)).toEqual(first);
    expect((await outcome(serving, { ...once, maxTokens: 25 })).error?.reason).toBe('JOB_ID_CONFLICT');
    const other = await outcomeOf(serving.client, { ...picture, jobId: 'enhance-once' });
    expect(other.error?.reason).toBe('JOB_ID_CONFLICT');
  });

  it('is a job among the others: listed, watched, cancelled', async () => {
    const { client } = serving;
    let cancelled: Promise<unknown> | undefined;
    const { error } = await outcome(serving, { jobId: 'enhance-long', maxTokens: 512 }, ({ event }) => {
      if (event?.$case !== 'textDelta') return;
      cancelled ??= call((done) => client.jobs.cancelJob({ jobId: 'enhance-long' }, done));
    });
    await cancelled;
    expect(error?.reason).toBe('CANCELLED');
    const { job } = await call<{ job: Job | undefined }>((done) => client.jobs.getJob({ jobId: 'enhance-long' }, done));
    expect(job).toMatchObject({ state: JobState.JOB_STATE_CANCELLED, model: 'qwen' });
    expect((await outcome(serving)).error).toBeUndefined();
  });

  it('ends with its client', async () => {
    const abort = new AbortController();
    for await (const { event } of enhance(serving.client, { ...asked, jobId: 'left', maxTokens: 512 }, abort.signal)) {
      if (event?.event?.$case === 'textDelta') break;
    }
    const state = async () => {
      const answer = await call<{ job: Job | undefined }>((done) =>
        serving.client.jobs.getJob({ jobId: 'left' }, done),
      );
      return answer.job?.state;
    };
    while ((await state()) === JobState.JOB_STATE_RUNNING) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(await state()).toBe(JobState.JOB_STATE_CANCELLED);
  });

  it('answers bad fields all at once', async () => {
    const { error } = await outcome(serving, { prompt: ' ', maxTokens: 513, temperature: 2.5, topP: 0, seed: -1n });
    expect(error?.violations.map(({ description }) => description)).toEqual([
      'prompt must not be empty: there is nothing to enrich',
      'max_tokens 513 must be >= 1 and <= 512',
      'temperature 2.5 must be >= 0 and <= 2',
      'top_p 0 must be > 0 and <= 1',
      'seed -1 must be >= 0 and <= 9007199254740991',
    ]);
  });

  it('refuses what the policy refuses, before the model is asked', async () => {
    const { events, error } = await outcome(serving, { prompt: 'an explicit child' });
    expect([error?.status, error?.reason, events]).toEqual(['FAILED_PRECONDITION', 'POLICY', []]);
  });

  it('refuses a prompt that only fits the policy without the template around it, before the model loads', async () => {
    const template = join(cacheFolder, 'template.yaml');
    await writeFile(template, 'plain: "An explicit picture of {prompt}: "\n');
    await withServer(serveQwen({ ENHANCE_TEMPLATE: template }), async (other) => {
      const { events, error } = await outcome(other, { prompt: 'a child' });
      expect([error?.reason, kinds(events)]).toEqual(['POLICY', ['failed']]);
      expect((await outcomeOf(other.client, { ...picture, prompt: 'a child' })).error?.reason).toBe('POLICY');
      expect((await modelOf(other))?.state).toBe(ModelState.MODEL_STATE_UNLOADED);
    });
  });

  it('serves 64 of 100 calls that come at once, four at a time, and tells the others when to come back', async () => {
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => outcome(serving, { temperature: 0 })));
    const refused = outcomes.filter(({ error }) => error !== undefined);
    expect(refused).toHaveLength(36);
    for (const { error } of refused) {
      expect(error).toMatchObject({
        reason: 'QUEUE_FULL',
        retryAfterMs: 2000,
        message: '64 prompts wait or are enhanced, the limit; try again later or raise LIMIT_QUEUE',
      });
    }
    expect(outcomes.filter(({ prompt }) => prompt !== '')).toHaveLength(64);
  });

  it('answers DEADLINE_EXCEEDED where one token takes longer than there is time', async () => {
    await withServer(serveQwen({ ENHANCE_TIMEOUT_MS: '1' }), async (other) => {
      const { error } = await outcome(other, { maxTokens: 512 });
      expect([error?.status, error?.message]).toEqual([
        'DEADLINE_EXCEEDED',
        'the prompt was not enhanced within 1 ms; ask for fewer max_tokens or raise ENHANCE_TIMEOUT_MS',
      ]);
    });
  });

  it('answers NOT_FOUND without a language model, and for another name', async () => {
    await withServer(serve({ WAN_PATH: inject('tinyWan') }), async (other) => {
      expect((await outcome(other)).error).toMatchObject({
        status: 'NOT_FOUND',
        message: 'this server has no language model; it is started with --qwen PATH (QWEN_PATH)',
      });
    });
    expect((await outcome(serving, { model: 'gpt' })).error?.message).toBe(
      'model "gpt" is not served; this server has: qwen',
    );
  });

  it('kill -9 of the engine while it writes: UNAVAILABLE with RetryInfo, and the next call works', async () => {
    const { error } = await outcome(serving, { maxTokens: 512 }, ({ event }) => {
      const pid = serving.textEngine?.engine.pid;
      if (event?.$case === 'textDelta' && pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGKILL');
    });
    expect(error).toMatchObject({ status: 'UNAVAILABLE', reason: 'ENGINE_CRASHED', retryAfterMs: 1000 });
    expect((await outcome(serving)).error).toBeUndefined();
  });

  it('drains: what was accepted is written to its end, what comes is refused', async () => {
    const other = await serveQwen();
    let drained: Promise<void> | undefined;
    let late: Promise<EnhanceOutcome> | undefined;
    const first = await outcome(other, { maxTokens: 512 }, ({ event }) => {
      if (event?.$case !== 'textDelta' || drained !== undefined) return;
      drained = other.server.drain();
      late = outcome(other);
    });
    expect(first.error).toBeUndefined();
    expect((await late)?.error?.reason).toBe('DRAINING');
    await drained;
    await other.stop();
  });
});

describe('LoadModel and UnloadModel', () => {
  const models = () => serving.client.models;

  it('load and end a language model', async () => {
    const load = () => call<{ model: Model | undefined }>((done) => models().loadModel({ name: 'qwen' }, done));
    expect((await load()).model?.state).toBe(ModelState.MODEL_STATE_READY);
    const pid = serving.textEngine?.engine.pid ?? 0;
    await load();
    expect(serving.textEngine?.engine.pid).toBe(pid);
    const { model } = await call<{ model: Model | undefined }>((done) => models().unloadModel({ name: 'qwen' }, done));
    expect(model).toMatchObject({ state: ModelState.MODEL_STATE_UNLOADED, residentBytes: 0n });
    expect(isAlive(pid)).toBe(false);
  });

  it('refuse a model that stays, and one that is not there', async () => {
    const unload = (name: string) => call((done) => models().unloadModel({ name }, done));
    await expect(unload('wan')).rejects.toThrow(/model "wan" stays loaded as long as the server runs/);
    await expect(unload('dall-e')).rejects.toThrow('model "dall-e" is not served; this server has: wan, qwen');
  });
});

describe('an enhanced job', () => {
  it('renders the enhanced prompt and tells both', async () => {
    const done = await outcomeOf(serving.client, picture);
    const metadata = metadataOf(done);
    expect(metadata).toMatchObject({ originalPrompt: PROMPT, enhancementStrategy: 'qwen', finalPromptType: 'string' });
    expect(metadata.enhancement?.newTokens).toBeGreaterThan(0);
    expect(course(done.events).slice(-8)).toEqual(
      expect.arrayContaining(['textDelta', 'progress', 'started', 'assetChunk', 'completed']) as string[],
    );
    const { enhancedPrompt = '' } = metadata;
    expect(enhancedPrompt).not.toBe(PROMPT);
    const bare = { outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
    const plain = { ...picture, ...bare, jobType: JobType.JOB_TYPE_IMAGE_FAST };
    const [itself, original, enhanced] = await Promise.all([
      outcomeOf(serving.client, { ...picture, ...bare }),
      outcomeOf(serving.client, plain),
      outcomeOf(serving.client, { ...plain, prompt: enhancedPrompt }),
    ]);
    expect(itself.files).toEqual(enhanced.files);
    expect(itself.files).not.toEqual(original.files);
  });

  it('enhances the same for the same seed', async () => {
    const one = metadataOf(await outcomeOf(serving.client, picture));
    const two = metadataOf(await outcomeOf(serving.client, { ...picture, steps: 3 }));
    expect(two.enhancedPrompt).toBe(one.enhancedPrompt);
  });

  it('takes kill -9 of the engine under its prompt, and delivers on the prompt as it was sent', async () => {
    const enhanceAndKill = (seed: number) =>
      outcomeOf(
        serving.client,
        { ...picture, seed: BigInt(seed) },
        {
          onEvent: ({ event }) => {
            const pid = serving.textEngine?.engine.pid;
            if (event?.$case === 'textDelta' && pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGKILL');
          },
        },
      );
    // How long a text gets depends on the processor: a short one is whole before the kill.
    let done = await enhanceAndKill(1);
    for (let seed = 2; metadataOf(done).enhancementStrategy === 'qwen' && seed < 30; seed += 1) {
      done = await enhanceAndKill(seed);
    }
    expect(metadataOf(done)).toMatchObject({
      enhancementStrategy: 'fallback',
      promptProblem: 'the engine of model qwen was ended by SIGKILL; it restarts, try again',
      enhancedPrompt: undefined,
      enhancement: undefined,
    });
    expect(done.files).toHaveLength(1);
  });

  it('is cancelled while its prompt is enhanced', async () => {
    const abort = new AbortController();
    const { error } = await outcomeOf(
      serving.client,
      { ...picture, jobId: 'cancelled-early' },
      { signal: abort.signal, onEvent: ({ event }) => event?.$case === 'textDelta' && abort.abort() },
    );
    expect(error?.reason).toBe('CANCELLED');
    const { job } = await call<{ job: Job | undefined }>((done) =>
      serving.client.jobs.getJob({ jobId: 'cancelled-early' }, done),
    );
    expect(job?.startTime).toBeUndefined();
  });

  it.each([
    [
      'there is no language model',
      { QWEN_PATH: '' },
      'this server has no language model; it is started with --qwen PATH',
    ],
    [
      'there is no time',
      { ENHANCE_TIMEOUT_MS: '1' },
      /^the prompt was not enhanced within 1 ms( of the job's acceptance \(ENHANCE_TIMEOUT_MS\)|; ask for)/,
    ],
    [
      'there is no memory',
      { MEMORY_RESERVE_BYTES: String(2 ** 40) },
      /^model qwen needs 0\.\d GB of memory, 0\.0 GB of \d+\.\d GB are free beside the other models/,
    ],
    ['the file is not there', { QWEN_PATH: '/nowhere.gguf' }, '/nowhere.gguf does not exist or cannot be read'],
  ])('runs on the prompt as it was sent where %s', async (_, variables, problem) => {
    await withServer(serveQwen(variables), async (other) => {
      const { enhancementStrategy, promptProblem } = metadataOf(await outcomeOf(other.client, picture));
      expect(enhancementStrategy).toBe('fallback');
      if (problem instanceof RegExp) expect(promptProblem).toMatch(problem);
      else expect(promptProblem).toBe(problem);
    });
  });

  it('refuses a prompt that the policy refuses', async () => {
    const { error } = await outcomeOf(serving.client, { ...picture, prompt: 'an explicit child' });
    expect(error?.reason).toBe('POLICY');
  });
});

describe('a GGUF file that cannot be used', () => {
  it.each([
    [
      'of another architecture',
      async (path: string) => {
        const bytes = await readFile(gguf);
        const at = bytes.indexOf('qwen2', bytes.indexOf('general.architecture'));
        bytes.write('llama', at);
        await writeFile(path, bytes);
      },
      'MODEL_UNSUPPORTED',
      / is of architecture "llama"; give a Qwen2 or Qwen2\.5 \("qwen2"\)$/,
    ],
    [
      'that was cut off',
      async (path: string) => {
        await cp(gguf, path);
        await truncate(path, 100_000);
      },
      'CHECKPOINT_INVALID',
      /download it again/,
    ],
  ] as const)(
    '%s: FAILED_PRECONDITION for a call, the prompt as it was sent for a job',
    async (_, make, reason, message) => {
      const path = join(cacheFolder, `${reason}.gguf`);
      await make(path);
      await withServer(serveQwen({ QWEN_PATH: path }), async (other) => {
        const { error } = await outcome(other);
        expect(error).toMatchObject({ status: 'FAILED_PRECONDITION', reason });
        expect(error?.message).toMatch(message);
        const { enhancementStrategy, promptProblem } = metadataOf(await outcomeOf(other.client, picture));
        expect(enhancementStrategy).toBe('fallback');
        expect(promptProblem).toMatch(message);
      });
    },
  );
});

describe('without node-llama-cpp', () => {
  it('says how to install it', async () => {
    // The build alone, in a folder that has no .llama above it.
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const bare = join(cacheFolder, 'bare');
    await cp(join(root, 'dist', 'src'), join(bare, 'dist', 'src'), { recursive: true });
    await cp(join(root, 'package.json'), join(bare, 'package.json'));
    await symlink(join(root, 'node_modules'), join(bare, 'node_modules'));
    const textEntry = pathToFileURL(join(bare, 'dist', 'src', 'engine', 'text-process.js'));
    await withServer(serveQwen({}, { textEntry }), async (other) => {
      expect((await outcome(other)).error).toMatchObject({
        status: 'FAILED_PRECONDITION',
        reason: 'LLAMA_MISSING',
        message: 'prompts are enhanced by node-llama-cpp, which is not installed; run: npm run setup:llama',
      });
    });
  });
});
