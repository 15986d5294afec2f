// Compares proto/ with the committed image of the released API. --update: makes today's API the released one.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const buf = (...args) => execFileSync(join(root, 'node_modules/.bin/buf'), args, { cwd: root, stdio: 'inherit' });
const baseline = 'proto/baseline.binpb';

try {
  if (process.argv.includes('--update')) buf('build', '-o', baseline);
  else buf('breaking', '--against', baseline);
} catch {
  process.exitCode = 1;
}
