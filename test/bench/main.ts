/** npm run bench -- server | sdxl | wan | enhance | lora | wan-references | bridge | attention | policy | attack | runtime | turns | gpu | fairness | soak | load | deep-cache | int8 | thresholding | decode-parts | files [options]: each prints figures of one run; server is the default. */
const benches = [
  'server',
  'sdxl',
  'wan',
  'enhance',
  'lora',
  'wan-references',
  'bridge',
  'attention',
  'policy',
  'attack',
  'runtime',
  'turns',
  'gpu',
  'fairness',
  'soak',
  'load',
  'deep-cache',
  'int8',
  'thresholding',
  'decode-parts',
  'files',
];
const [, , name = 'server'] = process.argv;
const isOption = name.startsWith('-');
if (!isOption && !benches.includes(name)) {
  process.stderr.write(`bench "${name}" must be one of ${benches.join(', ')}\n`);
  process.exit(2);
}
if (!isOption) process.argv.splice(2, 1);
await import(`./${isOption ? 'server' : name}.js`);
