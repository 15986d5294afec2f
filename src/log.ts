import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger } from 'pino';

/**
 * JSON lines on standard error; readable ones on a terminal. Prompts and tokens never reach the log.
 * @param fieldsOf further fields of a line. Omitted: none
 */
export function createLog(level: string, fieldsOf?: (line: object) => object): Logger {
  const stream: DestinationStream = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname' })
    : pino.destination({ dest: 2, sync: true });
  const redact = ['prompt', '*.prompt', '*.negativePrompt', 'token', '*.token'];
  return pino({ level, redact, ...(fieldsOf && { mixin: fieldsOf }) }, stream);
}
