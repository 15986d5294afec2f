/** npm run bench -- server | sdxl | wan | bridge [options]: each prints figures of one run; server is the default. */
const [, , name] = process.argv;
const benches = { server: './server.js', sdxl: './sdxl.js', wan: './wan.js', bridge: './bridge.js' } as const;
const known = name === 'server' || name === 'sdxl' || name === 'wan' || name === 'bridge';
if (!known && name !== undefined && !name.startsWith('-')) {
  process.stderr.write(`bench "${name}" must be one of ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}
if (known) process.argv.splice(2, 1);
await import(benches[known ? name : 'server']);
