import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { results, Thumbnail } from '../parts/asset-view';
import { SelectField } from '../parts/field';
import { Lightbox, type Tile } from '../parts/lightbox';
import { reconnects } from '../state/connection';
import { enumName, jobTypeName, time } from '../state/formats';
import { galleryProblem, isLoading, jobs, keepGallery, loadMore, nextPage } from '../state/gallery';

/** Finished jobs that the server still has, with their files. */
export function Gallery() {
  const state = useSignal('completed');
  const type = useSignal('');
  const text = useSignal('');
  const open = useSignal<number | undefined>(undefined);
  const reconnected = reconnects.value;
  useEffect(() => {
    const abort = new AbortController();
    void keepGallery(abort.signal);
    return () => abort.abort();
  }, [reconnected]);
  const types = [...new Set(jobs.value.map((job) => jobTypeName(job.jobType)).filter((name) => name !== ''))].sort();
  const wanted = text.value.toLowerCase();
  const shown = jobs.value.filter(
    (job) =>
      (state.value === '' || enumName(job.state, 'JOB_STATE') === state.value) &&
      (type.value === '' || jobTypeName(job.jobType) === type.value) &&
      (wanted === '' || `${job.metadata?.originalPrompt ?? ''} ${job.jobId}`.toLowerCase().includes(wanted)),
  );
  const tiles = shown.flatMap((job): Tile[] => {
    const files = results(job.assets);
    return files.length === 0 ? [{ job, asset: undefined }] : files.map((asset) => ({ job, asset }));
  });
  return (
    <>
      <h2 class="visually-hidden">Gallery</h2>
      <form class="row filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          Search the prompts
          <input
            type="search"
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
        </label>
        <SelectField label="Job type" value={type}>
          <option value="">all</option>
          {types.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </SelectField>
        <SelectField label="State" value={state}>
          <option value="">all</option>
          <option>completed</option>
          <option>failed</option>
          <option>cancelled</option>
        </SelectField>
        <p class="hint" role="status" data-testid="gallery-count">
          {shown.length} of {jobs.value.length} jobs{nextPage.value === undefined ? '' : ', and older ones'}
        </p>
      </form>
      {galleryProblem.value !== '' && <p class="banner">{galleryProblem.value}</p>}
      <ul class="gallery">
        {tiles.map((tile, i) => (
          <li key={`${tile.job.jobId}/${tile.asset?.index ?? 0}`}>
            <TileButton
              tile={tile}
              onOpen={() => {
                open.value = i;
              }}
            />
          </li>
        ))}
      </ul>
      {tiles.length === 0 && !isLoading.value && <p class="hint">No such job yet.</p>}
      <More />
      <Lightbox tiles={tiles} open={open} />
    </>
  );
}

function TileButton({ tile: { job, asset }, onOpen }: { readonly tile: Tile; readonly onOpen: () => void }) {
  const prompt = job.metadata?.originalPrompt ?? '';
  if (asset === undefined) {
    return (
      <button type="button" class="tile" onClick={onOpen}>
        <span class="error">{job.error?.message ?? enumName(job.state, 'JOB_STATE')}</span>
        <span class="hint">{time(job.endTime)}</span>
      </button>
    );
  }
  // The server makes a poster of a video beside it.
  const poster = job.assets?.find(({ role }) => role === 'ASSET_ROLE_THUMBNAIL' || role === 'ASSET_ROLE_POSTER');
  const isVideo = asset.contentType.startsWith('video/');
  return (
    <button type="button" class="tile" onClick={onOpen}>
      <Thumbnail
        jobId={job.jobId}
        asset={(isVideo ? poster : undefined) ?? asset}
        alt={prompt || 'Image without a prompt'}
      />
      {isVideo && <span class="badge">video</span>}
    </button>
  );
}

/** Loads more when the end of the list comes near, or by its button. */
function More() {
  const button = useRef<HTMLButtonElement>(null);
  const hasMore = nextPage.value !== undefined && nextPage.value !== '';
  useEffect(() => {
    const element = button.current;
    if (element === null) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) void loadMore();
      },
      { rootMargin: '600px' },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [nextPage.value]);
  if (!hasMore) return null;
  return (
    <p>
      <button ref={button} type="button" disabled={isLoading.value} onClick={() => void loadMore()}>
        Load older jobs
      </button>
    </p>
  );
}
