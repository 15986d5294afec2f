import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { ApiError, get, post, type QueuedJob, type QueueOverview } from '../state/api';
import { time } from '../state/formats';
import { repeat } from '../state/timing';
import { DataTable } from './data-table';
import { Facts } from './facts';

const REFRESH_MS = 3000;

/** The queue of a bridge: counts, leases, dead jobs and callbacks, and their replay. */
export function QueueTables() {
  const overview = useSignal<QueueOverview | undefined>(undefined);
  const problem = useSignal('');
  const said = useSignal('');
  const load = async (signal: AbortSignal) => {
    try {
      overview.value = await get<QueueOverview>('api/queue', signal);
      problem.value = '';
    } catch (caught) {
      if (!signal.aborted) problem.value = ApiError.from(caught).message;
    }
  };
  useEffect(() => {
    const abort = new AbortController();
    void repeat(REFRESH_MS, abort.signal, () => load(abort.signal));
    return () => abort.abort();
  }, []);
  const replay = async (id: string, callbackOnly: boolean) => {
    try {
      const { result } = await post<{ result: string }>('api/queue/replay', { id, callbackOnly });
      said.value = `${id} ${result}.`;
    } catch (caught) {
      said.value = ApiError.from(caught).message;
    }
    await load(new AbortController().signal);
  };
  const queue = overview.value;
  return (
    <>
      <h2>Queue of the bridge</h2>
      <p role="status">{said.value}</p>
      {problem.value !== '' && <p class="error">{problem.value}</p>}
      {queue !== undefined && (
        <>
          <Facts
            facts={Object.entries(queue.counts).map(([name, n]) => [
              name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`),
              n,
            ])}
          />
          <Lines lines={queue.lines} />
          <QueuedTable title="Leased jobs" jobs={queue.leased} />
          <QueuedTable title="Dead jobs" jobs={queue.dead} onReplay={(id) => void replay(id, false)} />
          <QueuedTable title="Dead callbacks" jobs={queue.deadCallbacks} onReplay={(id) => void replay(id, true)} />
          {queue.rejected.length > 0 && (
            <>
              <h3>Payloads without a usable id</h3>
              <ul>
                {queue.rejected.map((one) => (
                  <li key={`${one.rejectedAt}${one.problem}`}>
                    {one.rejectedAt}: {one.problem}
                  </li>
                ))}
              </ul>
            </>
          )}
        </>
      )}
    </>
  );
}

/** Users take turns, so a long line delays nobody else. */
function Lines({ lines }: Pick<QueueOverview, 'lines'>) {
  if (lines.length === 0) return null;
  return (
    <>
      <h3>Waiting jobs by user</h3>
      <DataTable label="Waiting jobs by user" columns={['User', 'Waiting']}>
        {lines.map(({ user, waiting }) => (
          <tr key={user}>
            <th scope="row">{user}</th>
            <td>{waiting}</td>
          </tr>
        ))}
      </DataTable>
    </>
  );
}

const COLUMNS = ['Job', 'Type', 'User', 'Since', 'Attempts', 'Bridge', 'Reason'] as const;

interface QueuedTableProps {
  readonly title: string;
  readonly jobs: readonly QueuedJob[];
  readonly onReplay?: (id: string) => void;
}

function QueuedTable({ title, jobs, onReplay }: QueuedTableProps) {
  if (jobs.length === 0) return null;
  return (
    <>
      <h3>{title}</h3>
      <DataTable label={title} columns={onReplay ? [...COLUMNS, 'Action'] : COLUMNS}>
        {jobs.map((job) => (
          <tr key={job.id}>
            <th scope="row">{job.id}</th>
            <td>{job.type}</td>
            <td>{job.user}</td>
            <td>{time(job.createdAt)}</td>
            <td>{job.attempts}</td>
            <td>{job.worker}</td>
            <td>{job.problem}</td>
            {onReplay && (
              <td>
                <button type="button" onClick={() => onReplay(job.id)}>
                  Replay {job.id}
                </button>
              </td>
            )}
          </tr>
        ))}
      </DataTable>
    </>
  );
}
