import { effect } from '@preact/signals';
import { TokenDialog } from './parts/token-dialog';
import { about, problem, status } from './state/connection';
import { current } from './state/current-job';
import { href, route, type View } from './state/route';
import { Gallery } from './views/gallery';
import { Generate } from './views/generate';
import { Operations } from './views/operations';

const VIEWS: readonly (readonly [View, string])[] = [
  ['generate', 'Generate'],
  ['gallery', 'Gallery'],
  ['operations', 'Operations'],
];

effect(() => {
  const job = current.value;
  const isRunning = job !== undefined && job.state !== 'completed' && job.state !== 'failed';
  document.title = isRunning ? `${Math.round(job.fraction * 100)} % · darkroom` : 'darkroom';
});

export function App() {
  const { view } = route.value;
  return (
    <>
      <button type="button" class="skip" onClick={skip}>
        Skip to the content
      </button>
      <header>
        <h1>darkroom</h1>
        <nav aria-label="Views">
          {VIEWS.map(([name, title]) => (
            <a key={name} href={href(name)} aria-current={view === name ? 'page' : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <Load />
      </header>
      <div role="status" class={problem.value === '' ? '' : 'banner'}>
        {problem.value}
      </div>
      <main id="main" tabIndex={-1}>
        {view === 'generate' && <Generate />}
        {view === 'gallery' && <Gallery />}
        {view === 'operations' && <Operations />}
      </main>
      <TokenDialog />
    </>
  );
}

function Load() {
  const now = status.value;
  if (now === undefined || problem.value !== '') return <p class="load">{about.value?.version}</p>;
  return (
    <p class="load">
      {now.runningJobs ?? 0} running, {now.queuedJobs ?? 0} queued
    </p>
  );
}

function skip(): void {
  document.getElementById('main')?.focus();
}
