import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Reference, ReferenceRole, ReferenceType } from '../../src/gen/darkroom/v1/job.js';
import { fetcherOf, httpsServer } from '../support/https-server.js';
import { kinds, metadataOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

const picture = (red: number, size = 96) =>
  sharp({ create: { width: size, height: size, channels: 3, background: { r: red, g: 90, b: 40 } } })
    .png()
    .toBuffer();

const reference = (source: Reference['source'], more: Partial<Reference> = {}): Reference => ({
  source,
  type: ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
  role: ReferenceRole.REFERENCE_ROLE_UNSPECIFIED,
  strength: undefined,
  denoisingStrength: undefined,
  ...more,
});
const image = (value: Buffer, more: Partial<Reference> = {}) => reference({ $case: 'image', value }, more);

let serving: Serving;
/** Where the fetcher of the server may go; a test's own server stands behind it. */
let port = 0;
beforeAll(async () => {
  const fetcher = fetcherOf(() => port);
  serving = await serve({}, { fetcher });
});
afterAll(() => serving.stop());

const run = (references: Reference[], more: object = {}) =>
  outcomeOf(serving.client, { ...quick, steps: 10, references, ...more });

describe('a reference', () => {
  it('as bytes conditions the picture, and the metadata says how', async () => {
    const [red, dark, none] = [
      await run([image(await picture(220))]),
      await run([image(await picture(10))]),
      await run([]),
    ];
    expect(metadataOf(red)).toMatchObject({
      referenceMode: 'single',
      referenceApplied: true,
      referenceMethod: 'img2img',
      referenceStrength: 0.5,
      denoisingStrength: 0.6,
    });
    expect(metadataOf(none)).toMatchObject({
      referenceMode: 'none',
      referenceApplied: undefined,
      referenceMethod: undefined,
    });
    expect(red.files[0]).not.toEqual(dark.files[0]);
    expect(red.files[0]).not.toEqual(none.files[0]);
  });

  it.each([
    ['style', ReferenceType.REFERENCE_TYPE_STYLE, 0.1, 0.95],
    ['style', ReferenceType.REFERENCE_TYPE_STYLE, 1, 0.6],
    ['composition', ReferenceType.REFERENCE_TYPE_COMPOSITION, 0.1, 0.9],
    ['composition', ReferenceType.REFERENCE_TYPE_COMPOSITION, 1, 0.3],
    ['character', ReferenceType.REFERENCE_TYPE_CHARACTER, 0.1, 0.85],
    ['character', ReferenceType.REFERENCE_TYPE_CHARACTER, 1, 0.4],
  ])('of a %s (%i) at strength %f runs %f of the steps', async (_, type, strength, share) => {
    const outcome = await run([image(await picture(200), { type, strength })], { steps: 20 });
    expect(metadataOf(outcome).denoisingStrength).toBeCloseTo(share, 6);
    const totals = outcome.events.flatMap(({ event }) => (event?.$case === 'progress' ? [event.value] : []));
    expect(totals.find(({ phase }) => phase === 2)?.total).toBe(share * 20);
  });

  it('takes the strength of diffusers as it is', async () => {
    const outcome = await run([image(await picture(200), { denoisingStrength: 0.2 })]);
    expect(metadataOf(outcome).denoisingStrength).toBe(0.2);
  });

  it('as a URL is fetched while others run, and gives what its bytes give', async () => {
    const bytes = await picture(220);
    const server = await httpsServer((_, response) => response.end(bytes));
    port = server.port;
    const url = reference({ $case: 'url', value: `https://references.test:${port}/a.png` });
    const [fetched, sent] = [await run([url]), await run([image(bytes)])];
    expect(server.requests).toHaveLength(1);
    expect(fetched.files[0]).toEqual(sent.files[0]);
  });

  it('that hangs holds up nobody and goes away with its job', async () => {
    const server = await httpsServer(() => undefined);
    port = server.port;
    const abort = new AbortController();
    const url = reference({ $case: 'url', value: `https://references.test:${port}/a.png` });
    const hanging = outcomeOf(serving.client, { ...quick, references: [url] }, { signal: abort.signal });
    const other = await outcomeOf(serving.client, { ...quick, seed: 77n });
    expect(other.error).toBeUndefined();
    abort.abort();
    expect((await hanging).error?.reason).toBe('CANCELLED');
  });

  it.each([
    ['http', 'http://references.test/a.png', 'REFERENCE_INVALID'],
    ['file', 'file:///etc/passwd', 'REFERENCE_INVALID'],
    ['the metadata service', 'https://169.254.169.254/latest', 'REFERENCE_INVALID'],
    ['a host that is not allowed', 'https://example.com/a.png', 'REFERENCE_INVALID'],
  ])('from %s fails its job and no other', async (_, value, reason) => {
    const { error, events } = await run([reference({ $case: 'url', value })]);
    expect(error?.reason).toBe(reason);
    expect(kinds(events)).toEqual(['queued', 'failed']);
  });

  it('that is no picture fails its job with the sentence of the decoder', async () => {
    const { error } = await run([image(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'))]);
    expect([error?.status, error?.reason]).toEqual(['INVALID_ARGUMENT', 'REFERENCE_INVALID']);
    expect(error?.message).toContain('SVG');
  });

  it('is refused before a job exists where its fields are wrong', async () => {
    const bytes = await picture(1);
    const cases: [Reference[], object, string][] = [
      [[image(bytes), image(bytes)], {}, 'references of an image must be at most 1, these are 2'],
      [
        [image(bytes, { role: ReferenceRole.REFERENCE_ROLE_START })],
        {},
        'references[0].role is for videos; leave it out for an image',
      ],
      [[image(bytes, { strength: 0.05 })], {}, 'references[0].strength 0.05 must be >= 0.1 and <= 1'],
      [[image(bytes, { denoisingStrength: 0 })], {}, 'references[0].denoising_strength 0 must be > 0 and <= 1'],
      [
        [image(bytes, { denoisingStrength: 0.3 })],
        { steps: 3 },
        'steps 3 times the denoising strength 0.3 must be >= 1; use 4 steps or more',
      ],
      [[reference(undefined)], {}, 'references[0] must have an image or a url'],
    ];
    for (const [references, more, sentence] of cases) {
      const { error, events } = await run(references, more);
      expect(error?.violations.map(({ description }) => description)).toEqual([sentence]);
      expect(events).toEqual([]);
    }
  });
});
