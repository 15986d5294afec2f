import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger } from 'pino';

/** JSON lines on standard error; readable ones on a terminal. Prompts and tokens never reach the log. */
export function createLog(level: string): Logger {
  const stream: DestinationStream = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname' })
    : pino.destination({ dest: 2, sync: true });
  return pino({ level, redact: ['prompt', '*.prompt', '*.negativePrompt', 'token', '*.token'] }, stream);
}
