import { type Command, Option } from 'commander';
import { connect, type DarkroomClient, serverStatus } from '../../client/client.js';
import { connectOptions, readClientConfig } from '../../config/client-config.js';
import { environment } from '../../environment.js';
import { InferenceError } from '../../errors.js';

/** Time that each of several servers has to answer, in ms. */
const ANSWER_MS = 5000;

/** Server of a command. */
export interface ServerOptions {
  readonly server?: string;
  readonly token?: string;
  readonly tls?: boolean;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

/** Adds the options of the connection, which are the same for every command that calls a server. */
export function addServerOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--server <host:port>',
        'the server; of several, separated by commas, the first that answers (DARKROOM_SERVER; default 127.0.0.1:50051)',
      ),
    )
    .addOption(
      new Option(
        '--token <token>',
        'bearer token; the variable keeps it out of the list of processes (DARKROOM_TOKEN)',
      ),
    )
    .addOption(new Option('--tls', "encrypt the connection and trust the system's authorities (DARKROOM_TLS)"))
    .addOption(new Option('--ca <file>', "PEM file with the authorities of the server's certificate (DARKROOM_CA)"))
    .addOption(new Option('--cert <file>', "PEM file with the client's certificate (DARKROOM_CERT)"))
    .addOption(new Option('--key <file>', 'PEM file with its private key (DARKROOM_KEY)'))
    .addOption(new Option('--server-name <name>', "name in the server's certificate (DARKROOM_SERVER_NAME)"));
}

/**
 * Connects to the server that the options or the environment name.
 * @throws InferenceError INVALID_REQUEST for a malformed address; UNREACHABLE if none of several servers answers
 */
export async function connectTo(options: ServerOptions): Promise<DarkroomClient> {
  const { server, token, tls, ca, cert, key, serverName } = options;
  const config = readClientConfig(environment(), {
    ...(server !== undefined && { DARKROOM_SERVER: server }),
    ...(token !== undefined && { DARKROOM_TOKEN: token, DARKROOM_TOKEN_FILE: '' }),
    ...(tls && { DARKROOM_TLS: 'true' }),
    ...(ca !== undefined && { DARKROOM_CA: ca }),
    ...(cert !== undefined && { DARKROOM_CERT: cert }),
    ...(key !== undefined && { DARKROOM_KEY: key }),
    ...(serverName !== undefined && { DARKROOM_SERVER_NAME: serverName }),
  });
  const { DARKROOM_SERVER: addresses } = config;
  const open = (address: string) => connect(address, connectOptions(config));
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
