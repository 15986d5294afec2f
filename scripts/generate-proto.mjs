// Generates src/gen from proto/: TypeScript by ts-proto, and the descriptor set that reflection serves.
// --check: fails when what is committed is not what proto/ gives.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

const root = join(import.meta.dirname, '..');
const bin = join(root, 'node_modules', '.bin');
const run = (args, cwd) =>
  execFileSync(join(bin, 'buf'), args, {
    cwd,
    stdio: 'inherit',
    env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
  });

function generate(folder) {
  run(['generate', root, '--template', join(root, 'buf.gen.yaml'), '-o', folder], root);
  run(['build', root, '-o', join(folder, 'src/gen/descriptors.binpb'), '--as-file-descriptor-set'], root);
}

function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();
}

if (!process.argv.includes('--check')) {
  generate(root);
} else {
  const fresh = mkdtempSync(join(tmpdir(), 'darkroom-gen-'));
  try {
    generate(fresh);
    const [want, have] = [join(fresh, 'src/gen'), join(root, 'src/gen')];
    const names = new Set([...filesOf(want), ...filesOf(have)]);
    const read = (folder, name) => {
      try {
        return readFileSync(join(folder, name));
      } catch {
        return Buffer.alloc(0);
      }
    };
    const stale = [...names].filter((name) => !read(want, name).equals(read(have, name)));
    if (stale.length > 0) {
      console.error(`src/gen is not what proto/ gives: ${stale.join(', ')}. Run: npm run generate:proto`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(fresh, { recursive: true });
  }
}
