import { describe, expect, it } from 'vitest';
import { JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import { contractJobTypes } from '../../src/job-types.js';
import { generatedMetadata } from '../../src/queue-bridge/callback/callback-metadata.js';
import { readPayload } from '../../src/queue-bridge/payload/payload.js';

const job = (fields: object = {}) => {
  const payload = { id: 'a', type: 'sdxl_image_fast', prompt: '', user_id: 'u', ...fields };
  const read = readPayload(JSON.stringify(payload), { jobTypes: contractJobTypes });
  if (read.kind !== 'job') throw new Error(read.problem);
  return read;
};
const metadataOf = (done: Partial<JobMetadata>) => generatedMetadata(job(), JobMetadata.fromPartial(done));

describe('generatedMetadata', () => {
  it("reports a card's memory in GiB and percent, and null without a card", () => {
    expect(metadataOf({ vramUsedBytes: 12n * 2n ** 30n, vramTotalBytes: 48n * 2n ** 30n })).toMatchObject({
      vram_used_gb: 12,
      vram_total_gb: 48,
      vram_utilization: 25,
    });
    expect(metadataOf({})).toMatchObject({ vram_used_gb: null, vram_total_gb: null, vram_utilization: null });
  });

  it.each([
    ['compel', true, true],
    ['fallback', true, false],
    ['none', false, null],
  ] as const)(
    'reports with the strategy "%s" whether the weights were applied',
    (enhancementStrategy, isAsked, success) => {
      const asked = job({ compel_enabled: isAsked, compel_weights: '(dawn:1.2)' });
      const done = JobMetadata.fromPartial({ enhancementStrategy });
      expect(generatedMetadata(asked, done).compel_success).toBe(success);
    },
  );
});
