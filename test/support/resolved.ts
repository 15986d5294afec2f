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

/** What a server makes of a request before it runs. @param info of the model. Omitted: it was not loaded yet */
export function resolve(
  request: Partial<GenerateRequest>,
  family = 'sdxl',
  info?: ModelInfo,
  variables: Parameters<typeof readConfig>[0] = {},
): JobPlan {
  return resolveRequest(parseRequest(GenerateRequest.fromPartial(request)), {
    config: readConfig(variables),
    families: builtInFamilies,
    jobTypes: contractJobTypes,
    model: { name: family, family: familyNamed(builtInFamilies, family), info },
    ffmpeg,
    addOns,
  });
}
