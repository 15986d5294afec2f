import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The built command line. */
export const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

/** Runs a command to its end. @param options `program`: another build's */
export function darkroom(
  args: readonly string[],
  { program = main, ...options }: { cwd?: string; env?: Record<string, string>; program?: string } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [program, ...args],
      { ...options, env: { ...process.env, ...options.env } },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      },
    );
  });
}
