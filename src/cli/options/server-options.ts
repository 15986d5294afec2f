import { type Command, Option } from 'commander';
import { connect, type DarkroomClient, serverStatus } from '../../client/client.js';
import { readClientConfig } from '../../config/client-config.js';
import { environment } from '../../environment.js';
import { InferenceError } from '../../errors.js';

/** Time that each of several servers has to answer, in ms. */
const ANSWER_MS = 5000;

/** Server of a command. */
export interface ServerOptions {
  readonly server?: string;
  readonly token?: string;
}

/** Adds `--server` and `--token`, which are the same for every command that calls a server. */
export function addServerOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--server <host:port>',
        'the server; of several, separated by commas, the first that answers (DARKROOM_SERVER; default 127.0.0.1:50051)',
      ),
    )
    .addOption(new Option('--token <token>', 'bearer token of the server (AUTH_TOKEN)'));
}

/**
 * Connects to the server that the options or the environment name.
 * @throws InferenceError INVALID_REQUEST for a malformed address; UNREACHABLE if none of several servers answers
 */
export async function connectTo({ server, token }: ServerOptions): Promise<DarkroomClient> {
  const { DARKROOM_SERVER: addresses, AUTH_TOKEN } = readClientConfig(environment(), {
    ...(server !== undefined && { DARKROOM_SERVER: server }),
    ...(token !== undefined && { AUTH_TOKEN: token }),
  });
  const open = (address: string) => connect(address, AUTH_TOKEN === undefined ? {} : { token: AUTH_TOKEN });
  const [only, ...others] = addresses;
  if (only !== undefined && others.length === 0) return open(only);
  const problems: string[] = [];
  for (const address of addresses) {
    const client = open(address);
    try {
      const { draining } = await serverStatus(client, ANSWER_MS);
      if (!draining) return client;
      problems.push(`${address} is draining`);
    } catch (error) {
      problems.push(InferenceError.from(error).message);
    }
    client.close();
  }
  throw new InferenceError('UNREACHABLE', `no server takes calls: ${problems.join('; ')}`);
}
