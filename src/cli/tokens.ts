import { Command, InvalidArgumentError, Option } from 'commander';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import { type Scope, scopes } from '../server/access/caller.js';
import { addToken, readTokenFile, revokeTokens, type TokenEntry, tokenId } from '../server/access/token-file.js';
import { count } from './options/parse-option.js';
import { say } from './output/say.js';

interface FileOption {
  readonly file?: string;
}

interface AddOptions extends FileOption {
  readonly scopes: Scope[];
  readonly expires?: string;
  readonly jobs?: number;
  readonly jobsPerMinute?: number;
  readonly pixels?: number;
  readonly frames?: number;
}

const DAY_MS = 24 * 3_600_000;

export function createTokensCommand(): Command {
  const tokens = new Command('tokens').description(
    'add, list and revoke the tokens of a server; it reads a changed file within seconds, and no running call ends',
  );
  withFile(tokens.command('add'))
    .description('add a token and print it; it is stored nowhere. Tokens of one name share their jobs and limits')
    .argument('<name>', 'name of its user')
    .addOption(
      new Option('--scopes <scopes>', `what it may do: ${scopes.join(', ')}, separated by commas`)
        .argParser(parseScopes)
        .default(['generate', 'read'], 'generate,read'),
    )
    .option(
      '--expires <when>',
      'a number of days, as 90d, or a time, as 2027-01-31T00:00:00Z; default never',
      parseExpiry,
    )
    .option('--jobs <n>', 'limit: jobs that wait or run', count)
    .option('--jobs-per-minute <n>', 'limit: new jobs within 60 s', count)
    .option('--pixels <n>', 'limit: width times height times number of images of a job', count)
    .option('--frames <n>', 'limit: frames of a video', count)
    .action(add);
  withFile(tokens.command('list')).description('list the tokens').option('--json', 'print JSON').action(list);
  withFile(tokens.command('revoke'))
    .description('revoke a token, or all of a name; calls that run and their jobs go on')
    .argument('<name-or-id>', 'name of its user, or id of one token as the list shows it')
    .action(revoke);
  return tokens;
}

async function add(name: string, options: AddOptions): Promise<void> {
  const { file, scopes, expires, jobs, jobsPerMinute, pixels, frames } = options;
  const limits = { jobs, jobsPerMinute, pixels, frames };
  const token = await addToken(fileOf(file), { name, scopes, expires, limits });
  process.stderr.write(`token for ${name}, shown only now:\n`);
  say(token);
}

async function list({ file, json }: FileOption & { readonly json?: boolean }): Promise<void> {
  const entries = await readTokenFile(fileOf(file));
  if (json)
    return say(
      JSON.stringify(
        entries.map((entry) => ({ id: tokenId(entry), ...entry })),
        null,
        2,
      ),
    );
  for (const entry of entries) {
    const limits = Object.entries(entry.limits).map(([limit, bound]) => `${limit} ${bound}`);
    say(
      [tokenId(entry), entry.name.padEnd(16), entry.scopes.join(','), stateOf(entry), limits.join(', ')]
        .join('  ')
        .trim(),
    );
  }
}

async function revoke(nameOrId: string, { file }: FileOption): Promise<void> {
  const revoked = await revokeTokens(fileOf(file), nameOrId);
  for (const entry of revoked) say(`${tokenId(entry)} ${entry.name} was revoked`);
  if (revoked.length === 0) say(`${nameOrId} had been revoked before`);
}

function stateOf({ revoked, expires }: TokenEntry): string {
  if (revoked !== undefined) return `revoked ${revoked}`;
  if (expires === undefined) return 'valid';
  return Date.parse(expires) <= Date.now() ? `expired ${expires}` : `valid until ${expires}`;
}

function withFile(command: Command): Command {
  return command.addOption(new Option('--file <path>', 'the token file (TOKENS_FILE)'));
}

function fileOf(option: string | undefined): string {
  const path = option ?? environment().TOKENS_FILE;
  if (path) return path;
  throw new InferenceError('INVALID_REQUEST', 'no token file: give --file PATH, or set TOKENS_FILE as for the server');
}

function parseScopes(value: string): Scope[] {
  const given = value.split(',').map((scope) => scope.trim());
  const unknown = given.find((scope) => !(scopes as readonly string[]).includes(scope));
  if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}" is none of ${scopes.join(', ')}.`);
  return [...new Set(given)] as Scope[];
}

function parseExpiry(value: string): string {
  const days = /^(\d{1,5})d$/.exec(value)?.[1];
  const time = days === undefined ? Date.parse(value) : Date.now() + Number(days) * DAY_MS;
  if (Number.isNaN(time)) throw new InvalidArgumentError('must be like 90d or 2027-01-31T00:00:00Z.');
  if (time <= Date.now()) throw new InvalidArgumentError('must be in the future.');
  return new Date(time).toISOString();
}
