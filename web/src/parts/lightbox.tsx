import type { Signal } from '@preact/signals';
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { type Asset, get, type Job } from '../state/api';
import { fillFrom } from '../state/form';
import { enumName } from '../state/formats';
import { go } from '../state/route';
import { AssetView, DownloadButton } from './asset-view';
import { MetadataList } from './metadata-list';

export interface Tile {
  readonly job: Job;
  /** Omitted: the job has no file. */
  readonly asset: Asset | undefined;
}

interface LightboxProps {
  readonly tiles: readonly Tile[];
  /** Place of the tile that is shown; undefined: closed. */
  readonly open: Signal<number | undefined>;
}

/** One file in full with its metadata. Arrow keys turn to the next one, Escape closes. */
export function Lightbox({ tiles, open }: LightboxProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const whole = useSignal<Job | undefined>(undefined);
  const at = open.value;
  const tile = at === undefined ? undefined : tiles[at];
  const id = tile?.job.jobId;
  useEffect(() => {
    if (id === undefined) return dialog.current?.close();
    if (dialog.current?.open === false) dialog.current.showModal();
    // Lists have long texts cut.
    const abort = new AbortController();
    get<Job>(`api/jobs/${encodeURIComponent(id)}`, abort.signal)
      .then((job) => {
        whole.value = job;
      })
      .catch(() => undefined);
    return () => abort.abort();
  }, [id]);
  const turn = (by: number) => {
    if (at !== undefined && tiles[at + by] !== undefined) open.value = at + by;
  };
  const close = () => {
    open.value = undefined;
  };
  const keys = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLVideoElement) return;
    if (event.key === 'ArrowLeft') turn(-1);
    if (event.key === 'ArrowRight') turn(1);
  };
  const job = whole.value?.jobId === id ? whole.value : tile?.job;
  const metadata = job?.metadata;
  return (
    <dialog ref={dialog} class="lightbox" aria-label="Result" onClose={close} onKeyDown={keys}>
      {tile !== undefined && job !== undefined && (
        <>
          <p class="buttons">
            <button type="button" disabled={at === 0} onClick={() => turn(-1)}>
              Previous
            </button>
            <button type="button" disabled={at === tiles.length - 1} onClick={() => turn(1)}>
              Next
            </button>
            {tile.asset !== undefined && <DownloadButton jobId={job.jobId} asset={tile.asset} />}
            {metadata !== undefined && (
              <button
                type="button"
                onClick={() => {
                  fillFrom(metadata, tile.asset?.seed);
                  close();
                  go('generate');
                }}
              >
                Again with this seed
              </button>
            )}
            <button type="button" onClick={close}>
              Close
            </button>
          </p>
          {tile.asset !== undefined && (
            <AssetView
              key={`${job.jobId}/${tile.asset.index ?? 0}`}
              jobId={job.jobId}
              asset={tile.asset}
              alt={metadata?.originalPrompt || 'Result without a prompt'}
            />
          )}
          {job.error !== undefined && (
            <p class="error">
              {enumName(job.state, 'JOB_STATE')}: {job.error.message}
            </p>
          )}
          {metadata !== undefined && <MetadataList metadata={metadata} asset={tile.asset} />}
        </>
      )}
    </dialog>
  );
}
