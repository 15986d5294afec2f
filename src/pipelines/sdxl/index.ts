export type { SdxlSource } from './checkpoint/checkpoint.js';
export { inspectSdxl, type SdxlInspection } from './inspect.js';
export { createSdxlPipeline, SdxlPipeline, type SdxlPipelineOptions } from './pipeline.js';
