import type { ChildProcess } from 'node:child_process';

/** Kills a process that leads a group, and everything in its group. A group that is gone is no error. */
export function killGroup({ pid }: Pick<ChildProcess, 'pid'>): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left.
  }
}

/** Names of variables whose values give access to something. */
const SECRET = /TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|SERVICE_KEY|REDIS_URL|DATABASE_URL/i;
/** Values with a name and password, as in `redis://name:password@host`. */
const WITH_PASSWORD = /^[a-z][a-z0-9+.-]*:\/\/[^/@\s]*:[^/@\s]*@/i;

/** The environment for programs that need no secrets: engines read checkpoints from anywhere, and start ffmpeg. */
export function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name, value = '']) => !SECRET.test(name) && !WITH_PASSWORD.test(value)),
  );
}
