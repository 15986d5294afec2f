// Copies the files that tsc leaves behind: the descriptor set that reflection serves, and the bridge's Lua scripts.
import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const scripts = readdirSync(join(root, 'src'), { recursive: true }).filter((name) => name.endsWith('.lua'));
for (const name of ['gen/descriptors.binpb', ...scripts]) cpSync(join(root, 'src', name), join(root, 'dist/src', name));
