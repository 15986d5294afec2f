/** npm run bench -- server | sdxl | wan | wan-references | enhance [options]: each prints figures of one run, by default server. */
const benches = ['server', 'sdxl', 'wan', 'wan-references', 'enhance'];
const [, , name = 'server'] = process.argv;
const isOption = name.startsWith('-');
if (!isOption && !benches.includes(name)) {
  process.stderr.write(`bench "${name}" must be one of ${benches.join(', ')}\n`);
  process.exit(2);
}
if (!isOption) process.argv.splice(2, 1);
await import(`./${isOption ? 'server' : name}.js`);
