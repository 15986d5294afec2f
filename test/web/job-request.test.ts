import { describe, expect, it } from 'vitest';
import { jobRequest } from '../../src/web/job-request.js';

describe('a job as JSON', () => {
  it('has kinds of guidance as the API has them', () => {
    const body = { skipLayerGuidance: { layers: [9], start: 0.1 }, dynamicThresholding: { mimicScale: 7 } };
    const { skipLayerGuidance, dynamicThresholding } = jobRequest(body);
    expect(skipLayerGuidance).toEqual({ layers: [9], start: 0.1, scale: 0 });
    expect(dynamicThresholding).toEqual({ mimicScale: 7 });
  });

  it.each([
    [{ skipLayerGuidance: { layers: [-1] } }, 'skipLayerGuidance.layers.0: must be a whole number, 0 to 4294967295'],
    [{ dynamicThresholding: { scale: 7 } }, 'dynamicThresholding: Unrecognized key: "scale"'],
  ])('%o is refused by the field', (body, message) => {
    expect(() => jobRequest(body)).toThrow(message);
  });
});
