import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, it } from 'vitest';
import { EstimateRequest, GenerateRequest } from '../../../src/gen/darkroom/v1/inference_service.js';
import { ArrivingMessages } from '../../../src/server/receive/arriving-messages.js';
import { inflate } from '../../../src/server/receive/inflate.js';
import { requestShapes } from '../../../src/server/receive/message-shapes.js';
import { requestBounds } from '../../../src/server/receive/request-bounds.js';

const descriptors = fromBinary(
  FileDescriptorSetSchema,
  readFileSync(new URL('../../../src/gen/descriptors.binpb', import.meta.url)),
);
const shapes = requestShapes(descriptors);
const boundsOf = (path: string) => requestBounds(path, shapes, { LIMIT_PROMPT_BYTES: 16_384 });
const generate = boundsOf('/darkroom.v1.InferenceService/Generate');
const estimate = boundsOf('/darkroom.v1.InferenceService/Estimate');
const cancel = boundsOf('/darkroom.v1.JobService/CancelJob');

const request = GenerateRequest.fromPartial({
  prompt: 'a lighthouse at dawn',
  width: 1024,
  seed: 2 ** 53 - 1,
  guidanceScale: 6.5,
  references: [{ source: { $case: 'image', value: Buffer.alloc(70_000, 0xff) } }, { strength: 0.5 }],
  loras: [{ name: 'ink', weight: -1 }],
  labels: { team: 'lights', empty: '' },
  guidanceInterval: { start: 0.25, end: 1 },
});

/** A message as it is sent. */
function framed(message: Uint8Array, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** Bytes that arrive in pieces. @returns the refusal and how many bytes had arrived then */
function arrive(bytes: Buffer, size: number, bounds = generate): { message?: string; at: number } {
  const messages = new ArrivingMessages(bounds);
  for (let at = 0; at < bytes.length; at += size) {
    const refusal = messages.write(bytes.subarray(at, at + size));
    if (refusal !== undefined) return { message: refusal.message, at: Math.min(at + size, bytes.length) };
  }
  return { at: bytes.length };
}

describe('messages that arrive', () => {
  const bytes = Buffer.from(GenerateRequest.encode(request).finish());

  it.each([1, 2, 3, 7, 1000, 1 << 20])(
    'pass when they are valid, in pieces of %i bytes, one after the other',
    (size) => {
      const twice = Buffer.concat([framed(bytes), framed(Buffer.alloc(0)), framed(bytes)]);
      expect(arrive(twice, size)).toEqual({ at: twice.length });
      const inner = Buffer.from(EstimateRequest.encode({ request }).finish());
      expect(arrive(framed(inner), size, estimate)).toEqual({ at: inner.length + 5 });
    },
  );

  it.each([
    ['references', Buffer.from([0x8a, 0x01, 0x00])],
    ['labels', Buffer.from([0xa2, 0x01, 0x00])],
    ['numbers', Buffer.from([0x30, 0x01])],
    ['unknown fields', Buffer.from([0x9a, 0x7d, 0x01, 0xff])],
    ['numbers of 8 bytes', Buffer.from([0x49, 0, 0, 0, 0, 0, 0, 0, 0])],
  ])('are refused at the first field too many: %s', (_, field) => {
    const many = framed(Buffer.alloc(field.length * 1_000_000, field));
    const { message, at } = arrive(many, 1000);
    expect(message).toBe('the request has more than 10000 fields, the limit; shorten its lists');
    expect(at).toBeLessThan(field.length * 10_000 + 2000);
  });

  it('counts the fields of messages in messages', () => {
    const fields = Buffer.alloc(40_000, Buffer.from([0x30, 0x01]));
    const inner = framed(Buffer.concat([Buffer.from([0x0a, 0xc0, 0xb8, 0x02]), fields]));
    expect(arrive(inner, 100, estimate).message).toMatch(/more than 10000 fields/);
    // The same bytes as a prompt are one field.
    expect(arrive(framed(Buffer.concat([Buffer.from([0x22, 0xc0, 0xb8, 0x02]), fields])), 100).message).toBeUndefined();
  });

  it('counts the numbers of a packed list as fields', () => {
    const layersOf = (layers: readonly number[]) =>
      framed(
        GenerateRequest.encode(GenerateRequest.fromPartial({ skipLayerGuidance: { layers: [...layers] } })).finish(),
      );
    const some = layersOf(Array.from({ length: 9000 }, (_, i) => 2 ** 31 + i));
    expect(arrive(some, 7)).toEqual({ at: some.length });
    const { message, at } = arrive(layersOf(Array.from({ length: 1_000_000 }, () => 300)), 1000);
    expect(message).toBe('the request has more than 10000 fields, the limit; shorten its lists');
    expect(at).toBeLessThan(23_000);
  });

  it('are refused by the length that they announce', () => {
    const announced = Buffer.from([0, 0x00, 0x10, 0x00, 0x00]);
    expect(arrive(announced, 5, cancel)).toEqual({
      message: 'the request has 1048576 bytes, must have at most 196608; send smaller images or shorter texts',
      at: 5,
    });
    expect(arrive(announced, 5).message).toBeUndefined();
  });

  it.each([
    ['a group', [0x1b]],
    ['an unknown wire type', [0x1f]],
    ['a field without a number', [0x00, 0x00]],
    ['a value longer than the message', [0x22, 0x05, 0x61]],
    ['a message longer than the message around it', [0x8a, 0x01, 0x05, 0x0a]],
    ['a tag without an end', Array.from({ length: 11 }, () => 0xff)],
    // Decoders read it as the tag of references.
    ['a tag of 33 bits', [0x8a, 0x81, 0x80, 0x80, 0x10, 0x00]],
  ])('are refused when they are no message: %s', (_, content) => {
    const { message } = arrive(framed(Buffer.from(content)), 1);
    expect(message).toBe('the request is not a valid protobuf message of this method');
  });

  it('are checked while they are inflated when they are compressed', async () => {
    const fields = Buffer.alloc(3_000_000, Buffer.from([0x8a, 0x01, 0x00]));
    expect(arrive(framed(gzipSync(fields), 1), 100).message).toBeUndefined();
    await expect(inflate(gzipSync(fields), 'gzip', generate)).rejects.toThrow(/more than 10000 fields/);
    await expect(
      inflate(gzipSync(GenerateRequest.encode({ ...request, prompt: 'a'.repeat(200_000) }).finish()), 'gzip', cancel),
    ).rejects.toThrow(/must have at most 196608/);
    // Decoders take a length of 2^32 for 0, and the fields behind it for fields.
    const hidden = Buffer.concat([Buffer.from([0x22, 0x80, 0x80, 0x80, 0x80, 0x10]), fields]);
    await expect(inflate(gzipSync(hidden), 'gzip', generate)).rejects.toThrow(/not a valid protobuf message/);
    await expect(inflate(Buffer.from('no gzip'), 'gzip', generate)).rejects.toThrow(
      'the request is not valid gzip, as its grpc-encoding says',
    );
    await expect(inflate(gzipSync(bytes).subarray(0, 100), 'gzip', generate)).rejects.toThrow(/not valid gzip/);
    expect(await inflate(gzipSync(bytes), 'gzip', generate)).toEqual(bytes);
  });
});
