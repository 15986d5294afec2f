import { readConfig } from '../../src/config/server-config.js';
import { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { contractJobTypes } from '../../src/job-types.js';
import { builtInFamilies } from '../../src/pipelines/families.js';
import { familyNamed } from '../../src/pipelines/family.js';
import type { ModelInfo } from '../../src/pipelines/pipeline.js';
import { openAddOns } from '../../src/server/request/add-ons.js';
import { type JobPlan, parseRequest, resolveRequest } from '../../src/server/request/resolve.js';

const ffmpeg = { found: true, path: 'ffmpeg', version: '7' } as const;
const addOns = openAddOns({});

/** What the released models say of themselves, as far as requests are concerned. */
export const released: Readonly<Record<'sdxl' | 'wan', ModelInfo>> = {
  sdxl: {
    ...{ family: 'sdxl', parameters: 0, weightBytes: 0, storage: 'F16', predictionType: 'epsilon', schedulers: [] },
    ...{ sizeMultiple: 8, nativeWidth: 1024, nativeHeight: 1024, unused: [] },
  },
  wan: {
    ...{ family: 'wan', parameters: 0, weightBytes: 0, storage: 'BF16', predictionType: 'flow', schedulers: [] },
    ...{ sizeMultiple: 16, nativeWidth: 832, nativeHeight: 480, unused: [], layers: 30 },
    clip: { frames: 81, fps: 16 },
    frames: { method: 'latent_hold', takes: ['start', 'end'], needs: [] },
  },
};

/** What a server makes of a request before it runs. @param more what else its model says of itself. Omitted: it is the released one */
export function resolve(
  request: Partial<GenerateRequest>,
  family = 'sdxl',
  more: Partial<ModelInfo> = {},
  variables: Parameters<typeof readConfig>[0] = {},
): JobPlan {
  return resolveRequest(parseRequest(GenerateRequest.fromPartial(request)), {
    config: readConfig(variables),
    families: builtInFamilies,
    jobTypes: contractJobTypes,
    model: {
      name: family,
      family: familyNamed(builtInFamilies, family),
      info: { ...released[family as keyof typeof released], ...more },
    },
    ffmpeg,
    addOns,
  });
}
