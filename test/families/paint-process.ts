/** The program of an engine process that knows one family more. */
import { runImageEngine } from '../../src/engine/run-image-engine.js';
import { builtInFamilies } from '../../src/pipelines/families.js';
import { paint } from './paint.js';

runImageEngine([...builtInFamilies, paint]);
