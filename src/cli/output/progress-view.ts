import { type JobEvent, type ModelLoading, Phase } from '../../gen/darkroom/v1/event.js';

const WIDTH = 28;
const NAMES: Readonly<Record<number, string>> = {
  [Phase.PHASE_ENCODE]: 'text',
  [Phase.PHASE_DENOISE]: 'denoise',
  [Phase.PHASE_DECODE]: 'decode',
  [Phase.PHASE_ENHANCE]: 'enhance',
};

/** Shows a job's events: one line that changes on a terminal, one line per phase elsewhere. */
export class ProgressView {
  readonly #out: NodeJS.WriteStream;
  #shown = '';

  constructor(out: NodeJS.WriteStream = process.stderr) {
    this.#out = out;
  }

  show({ event }: JobEvent): void {
    switch (event?.$case) {
      case 'queued':
        if (event.value.position > 0)
          this.#line(`queued, ${event.value.position} before it${eta(event.value.etaSeconds)}`);
        return;
      case 'modelLoading':
        this.#line(loadingLine(event.value));
        return;
      case 'progress': {
        const { phase, step, total, fraction, etaSeconds } = event.value;
        const done = Math.round(fraction * WIDTH);
        const bar = `${'█'.repeat(done)}${'░'.repeat(WIDTH - done)}`;
        const percent = `${Math.round(fraction * 100)}%`.padStart(4);
        if (this.#out.isTTY) this.#line(`${bar} ${percent}  ${NAMES[phase]} ${step}/${total}${eta(etaSeconds)}`);
        else if (step === total) this.#line(`${NAMES[phase]} ${step}/${total}`);
        return;
      }
      case 'completed':
      case 'failed':
        if (this.#out.isTTY) this.#out.write('\r\x1b[2K');
    }
  }

  #line(text: string): void {
    if (text === this.#shown) return;
    this.#shown = text;
    this.#out.write(this.#out.isTTY ? `\r\x1b[2K${text}` : `${text}\n`);
  }
}

/** Elsewhere than on a terminal, not every percent gets a line. */
function loadingLine({ model, fraction, converting, loras }: ModelLoading): string {
  if (loras.length > 0) return `model ${model} is built with ${loras.map(({ name }) => name).join(', ')}`;
  const percent = fraction === undefined ? '' : ` ${10 * Math.floor(fraction * 10)}%`;
  return `model ${model} is ${converting ? 'converted' : 'loading'}${percent}`;
}

function eta(seconds: number | undefined): string {
  return seconds === undefined ? '' : `, ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s to go`;
}
