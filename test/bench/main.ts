/** npm run bench -- server | sdxl | wan | wan-references [options]: each prints figures of one run; server is the default. */
const [, , name = 'server'] = process.argv;
const benches: Readonly<Record<string, string>> = {
  server: './server.js',
  sdxl: './sdxl.js',
  wan: './wan.js',
  'wan-references': './wan-references.js',
};
const isNamed = !name.startsWith('-');
const bench = isNamed ? benches[name] : benches.server;
if (bench === undefined) {
  process.stderr.write(`bench "${name}" must be one of ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}
if (isNamed) process.argv.splice(2, 1);
await import(bench);
