// What tsc leaves behind: the descriptor set that reflection serves.
import { cpSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
cpSync(join(root, 'src/gen/descriptors.binpb'), join(root, 'dist/src/gen/descriptors.binpb'));
