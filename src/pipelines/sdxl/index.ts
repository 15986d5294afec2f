export { inspectSdxl, type SdxlInspection } from './inspect.js';
export { createSdxlPipeline, type SdxlOptions, SdxlPipeline } from './pipeline.js';
