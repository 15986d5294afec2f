import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { ApiError, type Asset, call, fileUrl } from '../state/api';
import { extension } from '../state/formats';
import { inTurn } from '../state/in-turn';

interface FileState {
  readonly url: string;
  readonly problem: string;
}

/** Loads a file with the token of the page. Its URL is revoked when the component goes. @param isWanted false: not yet */
export function useFile(path: string, isWanted: boolean): FileState {
  const state = useSignal<FileState>({ url: '', problem: '' });
  useEffect(() => {
    if (!isWanted) return;
    const abort = new AbortController();
    let url = '';
    inTurn(async () => {
      if (abort.signal.aborted) return;
      const response = await call(path, { signal: abort.signal });
      const blob = await response.blob();
      if (abort.signal.aborted) return;
      url = URL.createObjectURL(blob);
      state.value = { url, problem: '' };
    }).catch((caught: unknown) => {
      if (!abort.signal.aborted) state.value = { url: '', problem: ApiError.from(caught).message };
    });
    return () => {
      abort.abort();
      if (url !== '') URL.revokeObjectURL(url);
    };
  }, [path, isWanted]);
  return state.value;
}

/** Files that the request asked for, without posters. */
export function results(assets: readonly Asset[] | undefined): readonly Asset[] {
  return (assets ?? []).filter(({ role }) => role === undefined || role === 'ASSET_ROLE_RESULT');
}

interface AssetProps {
  readonly jobId: string;
  readonly asset: Asset;
  readonly alt: string;
}

/** A file in full: an image, or a video with its controls. */
export function AssetView({ jobId, asset, alt }: AssetProps) {
  const { url, problem } = useFile(fileUrl(jobId, asset.index ?? 0), true);
  if (problem !== '') return <p class="error">{problem}</p>;
  if (url === '') return <div class="placeholder" aria-hidden="true" />;
  if (asset.contentType.startsWith('video/')) {
    // biome-ignore lint/a11y/useMediaCaption: the videos have no sound
    return <video class="full" src={url} controls loop playsInline aria-label={alt} />;
  }
  return <img class="full" src={url} alt={alt} width={asset.width} height={asset.height} />;
}

/** Saves a file under the name of its job. */
export function DownloadButton({ jobId, asset }: Omit<AssetProps, 'alt'>) {
  const problem = useSignal('');
  const download = async () => {
    try {
      const blob = await (await call(fileUrl(jobId, asset.index ?? 0))).blob();
      const link = document.createElement('a');
      link.href = URL.createObjectURL(blob);
      link.download = `${jobId}-${asset.index ?? 0}.${extension(asset.contentType)}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      problem.value = '';
    } catch (caught) {
      problem.value = ApiError.from(caught).message;
    }
  };
  return (
    <>
      <button type="button" onClick={() => void download()}>
        Download
      </button>
      {problem.value !== '' && <span class="error">{problem.value}</span>}
    </>
  );
}

/** A small image that loads when it comes near the window. */
export function Thumbnail({ jobId, asset, alt }: AssetProps) {
  const place = useRef<HTMLDivElement>(null);
  const isNear = useSignal(false);
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        isNear.value = true;
        observer.disconnect();
      },
      { rootMargin: '300px' },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const { url, problem } = useFile(`${fileUrl(jobId, asset.index ?? 0)}?size=thumbnail`, isNear.value);
  return (
    <div ref={place} class="thumbnail">
      {url !== '' && <img src={url} alt={alt} />}
      {url === '' && <span class={problem === '' ? 'visually-hidden' : 'error'}>{problem === '' ? alt : problem}</span>}
    </div>
  );
}
