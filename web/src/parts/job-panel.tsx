import { useSignal, useSignalEffect } from '@preact/signals';
import { type CurrentJob, cancelCurrent, current } from '../state/current-job';
import { fillFrom } from '../state/form';
import { seconds } from '../state/formats';
import { AssetView, DownloadButton, results } from './asset-view';
import { MetadataList } from './metadata-list';

/** The job that runs or ran last: progress, previews, cancel, then the result. */
export function JobPanel({ onAgain }: { readonly onAgain: () => void }) {
  const job = current.value;
  return (
    <section class="job" aria-label="Job">
      <Announcement />
      {job === undefined && <p class="hint">The result appears here.</p>}
      {job?.interruption !== undefined && job.interruption !== '' && (
        <p class="banner" data-testid="interruption">
          {job.interruption} The page tries again until it answers.
        </p>
      )}
      {job?.state === 'failed' && <Failure job={job} onAgain={onAgain} />}
      {job?.state === 'completed' && <Result job={job} />}
      {job !== undefined && job.state !== 'failed' && job.state !== 'completed' && <Progress job={job} />}
    </section>
  );
}

function Failure({ job, onAgain }: { readonly job: CurrentJob; readonly onAgain: () => void }) {
  return (
    <div>
      <p class="error" data-testid="job-error">
        {job.error}
      </p>
      <button type="button" onClick={onAgain}>
        Start it again
      </button>
    </div>
  );
}

function Progress({ job }: { readonly job: CurrentJob }) {
  const left = job.etaSeconds === undefined ? '' : `, ${seconds(job.etaSeconds)} left`;
  return (
    <div>
      <p>
        {job.doing}
        {left}
      </p>
      <progress aria-label="Progress of the job" max={1} value={job.state === 'running' ? job.fraction : undefined} />
      {job.text !== '' && <p class="hint">{job.text}</p>}
      {job.preview !== undefined && <img class="preview" src={job.preview} alt="Preview of the unfinished result" />}
      <p>
        <button type="button" disabled={job.isCancelling} onClick={() => void cancelCurrent()}>
          {job.isCancelling ? 'Cancelling after this step' : 'Cancel'}
        </button>
      </p>
    </div>
  );
}

function Result({ job }: { readonly job: CurrentJob }) {
  const { metadata, id } = job;
  if (metadata === undefined) return null;
  const assets = results(job.assets);
  return (
    <div data-testid="result">
      <div class={assets.length > 1 ? 'images several' : 'images'}>
        {assets.map((asset) => (
          <figure key={asset.index ?? 0}>
            <AssetView jobId={id} asset={asset} alt={metadata.originalPrompt || 'Result without a prompt'} />
            <figcaption>
              <DownloadButton jobId={id} asset={asset} />
              <button type="button" onClick={() => fillFrom(metadata, asset.seed)}>
                Again with seed {asset.seed ?? '0'}
              </button>
            </figcaption>
          </figure>
        ))}
      </div>
      <MetadataList metadata={metadata} asset={assets.length === 1 ? assets[0] : undefined} />
    </div>
  );
}

/** Says progress to screen readers: changes of what the job does, and every quarter, not every step. */
function Announcement() {
  const text = useSignal('');
  useSignalEffect(() => {
    const job = current.value;
    if (job === undefined) return;
    if (job.state === 'failed') text.value = `The job ended: ${job.error}`;
    else if (job.state === 'completed') text.value = 'The job is done.';
    else {
      const quarter = Math.floor(job.fraction * 4) * 25;
      text.value = `${job.doing.replace(/, step.*/, '')}${quarter > 0 ? `, ${quarter} percent` : ''}`;
    }
  });
  return (
    <p class="visually-hidden" aria-live="polite" data-testid="announcement">
      {text.value}
    </p>
  );
}
