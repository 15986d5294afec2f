import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { WrittenText } from '../../src/policy/sexualises-minors.js';
import { CostModel } from '../../src/server/jobs/cost-model.js';
import { GenerateJob } from '../../src/server/jobs/generate-job.js';
import { runBatch } from '../../src/server/jobs/run-batch.js';
import { createPolicy } from '../../src/server/request/policy.js';
import { sexualisesMinors } from '../support/policy.js';
import { released } from '../support/resolved.js';
import { outcomeOf, quick, serve, silent } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

/** Lengths whose CPU times are compared. */
const BYTES = 8192;
const TIMES = 16;

const policyOf = (variables: Record<string, string> = {}, log = silent) => createPolicy(readConfig({}, variables), log);

describe('the built-in rule', () => {
  it.each([
    ['a LoRA name', { positive: ['an explicit pose', '', 'school-child-v2'] }],
    ['the weights', { positive: ['a child', '(explicit:1.2)'] }],
    ['a phrase of weights', { positive: ['(chi)1.1(ld)1.2, explicit'] }],
    [
      'a negative prompt that a blend adds',
      { positive: ['a lake'], negative: '("explicit child", "a lake").blend(-1, 2)' },
    ],
    ['a negative prompt that takes clothes away', { positive: ['a child'], negative: 'clothes, blurry' }],
    ['a negative prompt that takes adults away', { positive: ['an explicit portrait'], negative: 'adult, blurry' }],
  ])('refuses by %s', async (_, texts) => {
    expect((await policyOf()).find(texts)?.reason).toBe('POLICY');
  });

  it.each([
    ['keeps both away', { positive: ['a lake'], negative: 'explicit, child, nsfw' }],
    ['keeps the sexual away', { positive: ['a child on a swing'], negative: 'explicit, nsfw, blurry' }],
    ['keeps minors away', { positive: ['an explicit portrait'], negative: 'child, teen, blurry' }],
    ['has a blend that adds nothing', { positive: ['a lake'], negative: '("nsfw child", "blurry").blend(1, 1)' }],
  ])('allows a negative prompt that %s', async (_, texts) => {
    expect((await policyOf()).find(texts)).toBeUndefined();
  });

  it('logs the rule and the language, and neither the log nor the error has the text', async () => {
    const lines: string[] = [];
    const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
    const error = (await policyOf({}, log)).find({ positive: ['ein Kind, nackt'] }, 'the prompt', { jobId: 'job-7' });
    expect(error?.message).toBe('the prompt is refused: sexual content involving minors is never generated');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      expect.objectContaining({ level: 30, jobId: 'job-7', rule: 'minors.explicit', language: 'de' }),
    ]);
    expect(lines.join('')).not.toMatch(/kind|nackt/i);
  });

  it('refuses text that is still being written as soon as both words are there, however far apart', () => {
    const text = new WrittenText();
    const parts = ['an expl', 'icit portrait. ', ...Array.from({ length: 200 }, () => 'waves on a lake '), 'with a ch'];
    expect(parts.map((part) => text.add(part)).filter((refusal) => refusal !== undefined)).toEqual([]);
    expect(text.add('ild')).toEqual({ rule: 'minors.explicit', language: 'en' });
  });

  // The ratio of CPU times: 16 if it is linear, 256 if it is quadratic. Nothing else runs in this process.
  it.each([
    ['prose', 'a lighthouse on a rocky coast at dawn, gulls over the waves, '],
    ['single letters', 'a b c d e f '],
    ['one word', 'nakenudechilkid'],
    ['references', '&amp;'],
    ['unspaced text', '公園で遊ぶ犬と猫の絵、水彩。'],
    ['numbers', '12 and a half '],
    ['parentheses', '(('],
    ['marks', 'a\u0301\u0302\u0303'],
    ['signs before a letter', '-(('],
  ])('takes work in proportion to the length of %s', (_, text) => {
    const work = (bytes: number, runs: number) =>
      Math.min(...Array.from({ length: runs }, (_, run) => cpuMs(`${text.repeat(bytes / text.length)}a${run}`)));
    expect(work(TIMES * BYTES, 3)).toBeLessThan(TIMES * 4 * work(BYTES, 5) + 100);
  });
});

/** User and system. */
function cpuMs(text: string): number {
  const before = process.cpuUsage();
  sexualisesMinors(text);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

describe('a job before it goes to an engine', () => {
  it('is checked once more: a refused one ends and does not reach the engine', async () => {
    const serving = await serve({}, { startsLater: true });
    try {
      const request = {
        prompt: 'an explicit child',
        negativePrompt: undefined,
        width: 64,
        height: 64,
        steps: 1,
        guidanceScale: 1,
        scheduler: 'euler',
        seeds: [1],
      };
      const plan = {
        info: released.sdxl,
        request,
        output: { format: 'png' as const, metadata: 'full' as const },
        prompt: '',
        references: undefined,
        isEnhanced: true,
        controls: [],
        controlVideo: undefined,
        samplingPreset: undefined,
      };
      const job = new GenerateJob({
        id: 'a',
        owner: '',
        requestHash: 'a',
        jobType: JobType.JOB_TYPE_UNSPECIFIED,
        model: 'sdxl',
        plan,
      });
      const onTimings = () => undefined;
      const costs = new CostModel(serving.engine.spec.batchPixels);
      const onEnd = vi.fn();
      const ends = await runBatch([job], serving.engine, { costs, policy: await policyOf(), onTimings, onEnd });
      expect(ends).toEqual([expect.objectContaining({ reason: 'POLICY' })]);
      expect(onEnd.mock.calls).toEqual([[job, ends[0]]]);
      expect(job.startTime).toBeUndefined();
    } finally {
      await serving.stop();
    }
  });
});

describe('rules of an operator', () => {
  const rulesFile = async (text: string) => {
    const path = join(await tempFolder(), 'rules.yaml');
    await writeFile(path, text);
    return { POLICY_RULES: path };
  };

  it('refuse what the built-in rule lets pass, in all readings', async () => {
    const policy = await policyOf(
      await rulesFile(
        'refuse:\n  - name: brands\n    words: [acme*]\n  - name: pairs\n    words: [dog]\n    with: [cat, 猫]\n',
      ),
    );
    const reasons = [
      'an acmeworks sign',
      'an A C M E sign',
      'аcme',
      'a dog',
      'a cat',
      'a d0g and a cat',
      'dog 猫',
      'a lake',
    ].map((text) => policy.find({ positive: [text] })?.message);
    const refused = "the prompt is refused: this server's policy does not allow it";
    expect(reasons).toEqual([refused, refused, refused, undefined, undefined, refused, refused, undefined]);
  });

  it('do not weaken the built-in rule', async () => {
    const policy = await policyOf(await rulesFile('refuse:\n  - name: brands\n    words: [acme]\n'));
    expect(policy.find({ positive: ['an explicit child'] })?.message).toMatch(/minors/);
  });

  it('are refused as a whole, with every fault', async () => {
    await expect(
      policyOf(await rulesFile('allow: [child]\nrefuse:\n  - name: Bad Name\n    words: []\n')),
    ).rejects.toThrow(/POLICY_RULES .* has mistakes:\n.*refuse\.0\.name.*refuse\.0\.words.*allow/s);
    await expect(policyOf({ POLICY_RULES: '/nowhere.yaml' })).rejects.toThrow(
      'POLICY_RULES /nowhere.yaml does not exist or cannot be read',
    );
  });
});

describe('a moderation service', () => {
  let server: Server;
  let url: string;
  let asked: string[] = [];
  let answer: (request: IncomingMessage, response: ServerResponse) => void;
  const json = (body: unknown): typeof answer => raw(200, JSON.stringify(body));
  const raw =
    (status: number, body: string, headers: Record<string, string> = {}): typeof answer =>
    (_, response) => {
      response.writeHead(status, headers).end(body);
    };
  const silence: typeof answer = () => undefined;

  beforeAll(async () => {
    server = createServer((request, response) => {
      let body = '';
      request.on('data', (part) => {
        body += part;
      });
      request.on('end', () => {
        asked.push(JSON.parse(body).text);
        answer(request, response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });
  afterEach(() => {
    asked = [];
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  it.each([
    ['refuses', json({ refused: true, rule: 'own' }), 'closed', 'POLICY'],
    ['lets pass', json({ refused: false }), 'closed', undefined],
    ['answers with another status', raw(500, '{"refused":false}'), 'closed', 'POLICY_UNAVAILABLE'],
    ['answers with something else', json({ ok: true }), 'closed', 'POLICY_UNAVAILABLE'],
    ['redirects', raw(302, '', { location: '/' }), 'closed', 'POLICY_UNAVAILABLE'],
    ['answers with too much', raw(200, ' '.repeat(100_000)), 'closed', 'POLICY_UNAVAILABLE'],
    ['does not answer', silence, 'closed', 'POLICY_UNAVAILABLE'],
    ['does not answer', silence, 'open', undefined],
  ] as const)('that %s, is answered as it should be', async (_, behaviour, POLICY_FAIL, reason) => {
    answer = behaviour;
    // A busy machine takes its time to answer.
    const POLICY_TIMEOUT_MS = behaviour === silence ? '200' : '30000';
    const policy = await policyOf({ POLICY_URL: url, POLICY_FAIL, POLICY_TIMEOUT_MS });
    const outcome = await policy.moderate({ positive: ['a lake', '', 'ink'] }).then(
      () => undefined,
      (error) => error.reason,
    );
    expect([outcome, asked]).toEqual([reason, ['a lake\nink']]);
  });

  it('is asked before a job is accepted, and not about what the built-in rule refuses', async () => {
    answer = json({ refused: true });
    const serving = await serve({ POLICY_URL: url });
    try {
      const { error, events } = await outcomeOf(serving.client, { ...quick, prompt: 'a red circle' });
      expect([error?.reason, events]).toEqual(['POLICY', []]);
      expect((await outcomeOf(serving.client, { ...quick, prompt: 'an explicit child' })).error?.reason).toBe('POLICY');
      answer = json({ refused: false });
      expect((await outcomeOf(serving.client, { ...quick, prompt: 'a blue circle' })).error).toBeUndefined();
      expect(asked).toEqual(['a red circle', 'a blue circle']);
    } finally {
      await serving.stop();
    }
  });
});
