import { signal } from '@preact/signals';

export type View = 'generate' | 'gallery' | 'operations';

export interface Route {
  readonly view: View;
  /** The job that the view shows. */
  readonly jobId: string | undefined;
}

function read(): Route {
  const [, view = '', id] = location.hash.split('/');
  const known: View = view === 'gallery' || view === 'operations' ? view : 'generate';
  return { view: known, jobId: id === undefined || id === '' ? undefined : decoded(id) };
}

/** A text that is no URI encoding stays as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The view that the address names: `#/gallery`, or `#/generate/<job id>`. */
export const route = signal<Route>(read());

addEventListener('hashchange', () => {
  route.value = read();
});

export function href(view: View, jobId?: string): string {
  return `#/${view}${jobId === undefined ? '' : `/${encodeURIComponent(jobId)}`}`;
}

export function go(view: View, jobId?: string): void {
  location.hash = href(view, jobId);
}
