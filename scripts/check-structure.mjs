// Checks the structure of src/: rooms import downwards only, no circle of imports, families are asked and not named, and the
// environment is read in one place. Prints every fault and exits with 1. An argument names another folder than src/.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

const root = process.argv[2] ?? join(import.meta.dirname, '..', 'src');

// From the bottom to the top. A file imports from its own room and from rooms of lower levels; rooms of one level stand side by
// side and do not know each other. A file belongs to the longest prefix that fits.
const LEVELS = [
  ['std/well-formed.ts', 'version.ts', 'device.ts', 'environment.ts', 'gen/'],
  ['errors.ts', 'log.ts'],
  ['std/', 'job-types.ts'],
  ['random/', 'tokenizer/', 'schedulers/', 'weights/', 'policy/', 'media/', 'references/', 'rpc/', 'observe/'],
  ['graph/', 'client/'],
  ['runtime/'],
  ['pipelines/frame-parts.ts'],
  ['pipelines/lora/adapter-settings.ts', 'pipelines/lora/lora-keys.ts', 'pipelines/model-memory.ts'],
  ['pipelines/pipeline.ts', 'pipelines/checkpoint-glance.ts', 'pipelines/lora/lora-header.ts'],
  ['pipelines/common/'],
  [
    'pipelines/sdxl/sampling-presets.ts',
    'pipelines/wan/sampling-presets.ts',
    'pipelines/lora/',
    'pipelines/embeddings/',
    'pipelines/controlnets/',
    'pipelines/upscalers/',
    'pipelines/family.ts',
  ],
  ['pipelines/sdxl/variables.ts', 'pipelines/wan/variables.ts'],
  ['pipelines/sdxl/model/', 'pipelines/wan/model/'],
  ['pipelines/sdxl/checkpoint/', 'pipelines/wan/checkpoint/'],
  ['pipelines/sdxl/prompt/', 'pipelines/sdxl/control/', 'pipelines/wan/prompt/', 'pipelines/wan/conditioning/'],
  ['pipelines/sdxl/', 'pipelines/wan/'],
  ['pipelines/', 'enhancer/'],
  ['config/', 'synthetic/'],
  ['storage/', 'engine/'],
  ['server/', 'queue-bridge/', 'web/'],
  ['cli/'],
];

// What a command must not load before it runs.
const CLOSURES = [
  {
    from: 'cli/main.ts',
    not: /^(?!cli\/main\.ts|errors\.ts|version\.ts|std\/well-formed\.ts)/,
    why: 'commands are imported when they are called',
  },
  { from: 'cli/bridge.ts', not: /^(pipelines|graph|runtime|engine|server)\//, why: 'the bridge knows only the API' },
  { from: 'cli/web.ts', not: /^(graph|runtime|engine|server)\//, why: 'the page is a client: it knows only the API' },
  { from: 'cli/doctor.ts', not: /^runtime\/session\.ts/, why: "doctor works where onnxruntime's addon does not load" },
  { from: 'cli/models.ts', not: /^runtime\/session\.ts/, why: 'checkpoints are inspected without a runtime' },
  {
    from: 'cli/serve.ts',
    not: /^observe\/otlp-traces\.ts/,
    why: "OpenTelemetry's SDK is loaded only where traces are on",
  },
  { from: 'server/server.ts', not: /^(graph|runtime\/session)/, why: 'no model runs in the server process' },
];

const FAMILIES = ['sdxl', 'wan'];

const files = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .sort();
const texts = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));
const faults = [];

/** Files of src that a file imports; `kind`: static (values or types), type, or dynamic. */
function importsOf(file) {
  const found = [];
  const text = texts.get(file);
  const add = (specifier, kind) => {
    const target = relative(root, join(root, dirname(file), specifier)).replace(/\.js$/, '.ts');
    if (existsSync(join(root, target))) found.push({ target, kind });
  };
  for (const [, type, specifier] of text.matchAll(/^(?:import|export) (type )?[^;]*?from '(\.[^']+)';/gms)) {
    add(specifier, type ? 'type' : 'static');
  }
  for (const [, specifier] of text.matchAll(/^import '(\.[^']+)';/gm)) add(specifier, 'static');
  for (const [, specifier] of text.matchAll(/\bimport\('(\.[^']+)'\)/g)) add(specifier, 'dynamic');
  return found;
}

const imports = new Map(files.map((file) => [file, importsOf(file)]));

// 1. Rooms.
function roomOf(file) {
  let best = { level: -1, room: '' };
  for (const [level, rooms] of LEVELS.entries()) {
    for (const room of rooms) {
      if (file.startsWith(room) && room.length > best.room.length) best = { level, room };
    }
  }
  return best;
}
for (const file of files) {
  const own = roomOf(file);
  if (own.level < 0) faults.push(`${file}: belongs to no room; add it to LEVELS`);
  for (const { target, kind } of imports.get(file)) {
    if (kind === 'dynamic') continue;
    const other = roomOf(target);
    if (other.room !== own.room && other.level >= own.level) {
      const where = other.level === own.level ? 'beside it' : 'above it';
      faults.push(`${file} imports ${target}, which is ${where}`);
    }
  }
}

// 2. Circles: strongly connected parts of more than one file (Tarjan).
{
  const index = new Map();
  const low = new Map();
  const stack = [];
  const visit = (file) => {
    index.set(file, index.size);
    low.set(file, index.get(file));
    stack.push(file);
    for (const { target, kind } of imports.get(file) ?? []) {
      if (kind === 'dynamic' || target.startsWith('gen/')) continue;
      if (!index.has(target)) visit(target);
      if (stack.includes(target)) low.set(file, Math.min(low.get(file), low.get(target)));
    }
    if (low.get(file) !== index.get(file)) return;
    const circle = stack.splice(stack.indexOf(file));
    if (circle.length > 1) faults.push(`a circle of imports: ${circle.join(', ')}`);
  };
  for (const file of files) if (!index.has(file)) visit(file);
}

// 3. Closures.
for (const { from, not, why } of CLOSURES) {
  const paths = new Map([[from, [from]]]);
  for (const [file, path] of paths) {
    if (not.test(file)) {
      faults.push(`${path.join(' -> ')}: ${why}`);
      break;
    }
    for (const { target, kind } of imports.get(file) ?? []) {
      if (kind === 'static' && !paths.has(target)) paths.set(target, [...path, target]);
    }
  }
}

// 4. Families are asked. A comparison with a family's name outside of the families is a branch that a third family falls through.
const names = FAMILIES.join('|');
const BRANCH = new RegExp(`(===|!==|==|!=|case|\\.startsWith\\(|\\.includes\\() ?'(${names})'|'(${names})' ?(===|!==)`);
const TABLE = new RegExp(`Record<Family|\\{ *(${names}):.*\\}\\[`);
for (const file of files) {
  if (file.startsWith('gen/') || FAMILIES.some((family) => file.startsWith(`pipelines/${family}/`))) continue;
  for (const [i, line] of texts.get(file).split('\n').entries()) {
    if (BRANCH.test(line) || TABLE.test(line))
      faults.push(`${file}:${i + 1} branches on a family's name: ${line.trim()}`);
  }
}

// 5. The environment.
for (const file of files) {
  if (file !== 'environment.ts' && /process\.env\b/.test(texts.get(file))) {
    faults.push(`${file} reads process.env; take it from environment.ts`);
  }
}

for (const fault of faults) console.error(fault);
if (faults.length > 0) process.exitCode = 1;
else
  console.log(
    `${files.length} files in ${LEVELS.flat().length} rooms: no import goes up, no circle, no branch on a family.`,
  );
