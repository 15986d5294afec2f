import multipart from '@fastify/multipart';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { listModels } from '../../client/client.js';
import { InferenceError } from '../../errors.js';
import { type Mask, type Reference, ReferenceRole, ReferenceType } from '../../gen/darkroom/v1/job.js';
import { ANSWER_MS, type Callers } from '../callers.js';
import type { JobFiles } from '../job-files.js';
import { parseBody } from '../job-request.js';
import { findImageModel, imageModels } from './image-models.js';
import { imageStream } from './image-stream.js';
import { editsSchema, generationsSchema, type ImagesRequest } from './images-request.js';
import { type MadeImage, type RunOptions, runImages } from './run-images.js';
import { SharedFiles } from './shared-files.js';

/** Default of REFERENCE_MAX_BYTES. The server has the last word. */
const MAX_IMAGE_BYTES = 20 * 2 ** 20;

export interface OpenaiOptions {
  readonly callers: Callers;
  readonly files: JobFiles;
}

/** Adds OpenAI's images API. https://platform.openai.com/docs/api-reference/images */
export async function addOpenai(app: FastifyInstance, { callers, files }: OpenaiOptions): Promise<void> {
  const shared = new SharedFiles();
  await app.register(multipart, { limits: { fileSize: MAX_IMAGE_BYTES, files: 2, fields: 32 } });

  const modelsOf = async (request: FastifyRequest) => {
    const client = await callers.clientOf(request);
    return { client, models: imageModels((await listModels(client, ANSWER_MS)).models) };
  };
  app.get('/v1/models', async (request) => {
    const { models } = await modelsOf(request);
    return { object: 'list', data: models.map(({ id }) => modelObject(id)) };
  });
  app.get('/v1/models/:id', async (request: FastifyRequest<{ Params: { id: string } }>) => {
    const { models } = await modelsOf(request);
    return modelObject(findImageModel(models, request.params.id).id);
  });
  app.post('/v1/images/generations', (request, reply) => {
    return answer('image_generation', parseBody(generationsSchema, request.body), { references: [] }, request, reply);
  });
  app.post('/v1/images/edits', async (request, reply) => {
    const { fields, image, mask } = await readForm(request);
    const parsed = parseBody(editsSchema, fields);
    const given = { references: [referenceOf(image, parsed.strength)], mask: mask && maskOf(mask) };
    return answer('image_edit', parsed, given, request, reply);
  });
  app.get('/files/:id', async (request: FastifyRequest<{ Params: { id: string } }>, reply) => {
    const { client, jobId, index } = shared.find(request.params.id);
    const { asset, data } = await files.read(client, jobId, index);
    return reply.type(asset.contentType).header('cache-control', 'private, max-age=3600').send(data);
  });

  async function answer(
    kind: 'image_generation' | 'image_edit',
    body: ImagesRequest,
    given: Pick<RunOptions, 'references' | 'mask'>,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<unknown> {
    const { client, models } = await modelsOf(request);
    const model = findImageModel(models, body.model);
    const abort = new AbortController();
    const cancel = () => abort.abort();
    const options = { client, model, ...given, signal: abort.signal };
    if (body.stream) {
      if (body.n > 1) throw invalid('n', 'must be 1 with stream');
      return reply
        .type('text/event-stream')
        .header('cache-control', 'no-store')
        .send(imageStream(kind, body, options, cancel));
    }
    // A client that hangs up does not want the images any more.
    reply.raw.once('close', cancel);
    const images = await runImages(body, options);
    const base = `${request.protocol}://${request.headers.host}`;
    const entry = ({ jobId, asset, data, metadata }: MadeImage) => ({
      ...(body.response_format === 'url'
        ? { url: `${base}${shared.share(client, jobId, asset.index)}` }
        : { b64_json: data.toString('base64') }),
      ...(metadata.enhancedPrompt !== undefined && { revised_prompt: metadata.enhancedPrompt }),
      seed: Number(asset.seed),
    });
    return {
      created: Math.floor(Date.now() / 1000),
      data: images.map(entry),
      output_format: body.output_format,
      size: `${images[0]?.asset.width}x${images[0]?.asset.height}`,
    };
  }
}

function modelObject(id: string) {
  return { id, object: 'model', created: 0, owned_by: 'darkroom' };
}

interface EditForm {
  readonly fields: Readonly<Record<string, string>>;
  readonly image: Buffer;
  readonly mask: Buffer | undefined;
}

/** @throws InferenceError INVALID_REQUEST unless there is one image */
async function readForm(request: FastifyRequest): Promise<EditForm> {
  if (!request.isMultipart()) throw invalid('image', 'is required: send the request as multipart/form-data');
  const fields: Record<string, string> = {};
  const images: Buffer[] = [];
  let mask: Buffer | undefined;
  for await (const part of request.parts()) {
    if (part.type === 'field') fields[part.fieldname] = String(part.value);
    else if (part.fieldname === 'mask') mask = await part.toBuffer();
    else images.push(await part.toBuffer());
  }
  const [image, ...others] = images;
  if (image === undefined) throw invalid('image', 'is required: the image to start from');
  if (others.length > 0) throw invalid('image', 'must be one image; several are not supported');
  return { fields, image, mask };
}

function referenceOf(image: Buffer, strength: number | undefined): Reference {
  return {
    source: { $case: 'image', value: image },
    type: ReferenceType.REFERENCE_TYPE_COMPOSITION,
    role: ReferenceRole.REFERENCE_ROLE_UNSPECIFIED,
    strength,
    denoisingStrength: undefined,
  };
}

/** OpenAI's masks are transparent where the image is drawn anew, which the server reads as they mean it. */
function maskOf(mask: Buffer): Mask {
  return { source: { $case: 'image', value: mask }, blur: 0 };
}

function invalid(field: string, description: string): InferenceError {
  return new InferenceError('INVALID_REQUEST', `${field} ${description}`, { violations: [{ field, description }] });
}
