/** The program of an engine process for images and videos, with the families that darkroom has. */
import { builtInFamilies } from '../pipelines/families.js';
import { runImageEngine } from './run-image-engine.js';

runImageEngine(builtInFamilies);
