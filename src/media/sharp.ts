import { createRequire } from 'node:module';
import type Sharp from 'sharp';

export type { Metadata, OutputInfo, ResizeOptions, Sharp, SharpOptions } from 'sharp';

/**
 * `import` takes three times as long over it as `require`, 0.2 s of a processor, because Node looks for the names that each file of
 * its CommonJS dependencies exports. Every server and engine waits for it before it is there.
 */
export const sharp = createRequire(import.meta.url)('sharp') as typeof Sharp;
