import { Command, Option } from 'commander';
import { readBridgeConfig } from '../config/bridge-config.js';
import { readWebConfig } from '../config/web-config.js';
import { createLog } from '../log.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';
import { onShutdown } from './shutdown.js';
import { openPage } from './web/open-page.js';

interface WebOptions extends ServerOptions {
  readonly listen?: string;
  readonly openai?: boolean;
}

export function createWebCommand(): Command {
  return addServerOptions(new Command('web'))
    .description('serve the page and an HTTP API for a server until SIGTERM')
    .addOption(new Option('--listen <host:port>', 'address (WEB_LISTEN; default 127.0.0.1:8080)'))
    .addOption(new Option('--openai', "serve OpenAI's images API under /v1 as well (WEB_OPENAI)"))
    .action(web);
}

async function web({ listen, openai, ...server }: WebOptions): Promise<void> {
  const config = readWebConfig(undefined, {
    ...(listen !== undefined && { WEB_LISTEN: listen }),
    ...(openai && { WEB_OPENAI: 'true' }),
  });
  const log = createLog(config.LOG_LEVEL);
  const page = await openPage({ config, log, client: await connectTo(server), queue: readBridgeConfig() });
  onShutdown(() => page.close(), 0);
}
