// Copies the files that tsc leaves behind: the descriptor set that reflection serves, the bridge's Lua scripts and the policy's words.
import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const files = readdirSync(join(root, 'src'), { recursive: true }).filter((name) => /\.(?:lua|json)$/.test(name));
for (const name of ['gen/descriptors.binpb', ...files]) cpSync(join(root, 'src', name), join(root, 'dist/src', name));
