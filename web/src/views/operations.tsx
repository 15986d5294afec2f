import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { DataTable } from '../parts/data-table';
import { type Fact, Facts } from '../parts/facts';
import { QueueTables } from '../parts/queue-tables';
import { ApiError, get, type Job } from '../state/api';
import { about, models, status } from '../state/connection';
import { bytes, enumName, jobTypeName, seconds, time } from '../state/formats';
import { href } from '../state/route';
import { repeat } from '../state/timing';

const REFRESH_MS = 3000;

/** Engines, queue, memory and failures, and the bridge's queue where there is one. */
export function Operations() {
  return (
    <>
      <h2>Server</h2>
      <Server />
      <h2>Engines</h2>
      <Engines />
      <h2>Running and waiting jobs</h2>
      <JobTable states="running,queued" empty="No job runs or waits." />
      <h2>Recent failures</h2>
      <JobTable states="failed" empty="No job failed." />
      {about.value?.hasQueue && <QueueTables />}
    </>
  );
}

function Server() {
  const now = status.value;
  if (now === undefined) return <p class="hint">Not known yet.</p>;
  const facts: readonly Fact[] = [
    ['Version', now.version ?? ''],
    ['Running', `${now.runningJobs ?? 0} jobs`],
    ['Queued', `${now.queuedJobs ?? 0} of at most ${now.queueLimit ?? 0}`],
    ['Up for', seconds(now.uptimeSeconds ?? 0)],
    ['Memory of the server', bytes(now.residentBytes)],
  ];
  return <Facts facts={facts} />;
}

const ENGINE_COLUMNS = [
  'Engine',
  'Model',
  'State',
  'Device',
  'Jobs',
  'Memory',
  'Memory of the device',
  'Restarts',
  'LoRA variants',
  'Problem',
] as const;

function Engines() {
  const shown = status.value?.models ?? models.value;
  return (
    <DataTable label="Engines" columns={ENGINE_COLUMNS}>
      {shown.flatMap(({ name: model, storage, engines = [] }) =>
        engines.map((engine) => (
          <tr key={engine.name}>
            <th scope="row">{engine.name}</th>
            <td>
              {model} {storage}
            </td>
            <td>{enumName(engine.state, 'MODEL_STATE')}</td>
            <td>{engine.device}</td>
            <td>{engine.runningJobs ?? 0}</td>
            <td>{bytes(engine.residentBytes)}</td>
            <td>{bytes(engine.deviceBytes)}</td>
            <td>{engine.restarts ?? 0}</td>
            <td>{engine.variants ?? 0}</td>
            <td class="error">{engine.problem}</td>
          </tr>
        )),
      )}
    </DataTable>
  );
}

const JOB_COLUMNS = ['Job', 'Type', 'Model', 'Since', 'State', 'Reason'] as const;

function JobTable({ states, empty }: { readonly states: string; readonly empty: string }) {
  const jobs = useSignal<readonly Job[]>([]);
  const problem = useSignal('');
  useEffect(() => {
    const abort = new AbortController();
    void repeat(REFRESH_MS, abort.signal, async () => {
      try {
        const page = await get<{ jobs?: readonly Job[] }>(`api/jobs?states=${states}&pageSize=50`, abort.signal);
        jobs.value = page.jobs ?? [];
        problem.value = '';
      } catch (caught) {
        if (!abort.signal.aborted) problem.value = ApiError.from(caught).message;
      }
    });
    return () => abort.abort();
  }, [states]);
  if (problem.value !== '') return <p class="error">{problem.value}</p>;
  if (jobs.value.length === 0) return <p class="hint">{empty}</p>;
  return (
    <DataTable label={`Jobs: ${states}`} columns={JOB_COLUMNS}>
      {jobs.value.map((job) => (
        <tr key={job.jobId}>
          <th scope="row">
            <a href={href('generate', job.jobId)}>{job.jobId}</a>
          </th>
          <td>{jobTypeName(job.jobType)}</td>
          <td>{job.model}</td>
          <td>{time(job.endTime ?? job.createTime)}</td>
          <td>
            {enumName(job.state, 'JOB_STATE')}
            {job.state === 'JOB_STATE_RUNNING' && `, ${Math.round((job.fraction ?? 0) * 100)} %`}
          </td>
          <td>{job.error === undefined ? '' : `${job.error.reason}: ${job.error.message}`}</td>
        </tr>
      ))}
    </DataTable>
  );
}
