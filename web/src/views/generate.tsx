import { useEffect } from 'preact/hooks';
import { EstimateLine } from '../parts/estimate-line';
import { NumberField, SelectField } from '../parts/field';
import { JobPanel } from '../parts/job-panel';
import { LoraFields } from '../parts/lora-fields';
import { PromptField } from '../parts/prompt-field';
import { ReferenceFields } from '../parts/reference-fields';
import { UpscaleFields } from '../parts/upscale-fields';
import { current, follow, startJob } from '../state/current-job';
import { chosenModel, chosenPreset, chosenType, form, jobTypes, requestOf } from '../state/form';
import { go, route } from '../state/route';

async function start(): Promise<void> {
  const id = await startJob(requestOf());
  if (id !== undefined) go('generate', id);
}

export function Generate() {
  const { jobId } = route.value;
  useEffect(() => {
    if (jobId !== undefined && current.value?.id !== jobId) void follow(jobId);
  }, [jobId]);
  const submit = (event: Event) => {
    event.preventDefault();
    void start();
  };
  return (
    <>
      <h2 class="visually-hidden">Generate</h2>
      <div class="generate">
        <form onSubmit={submit} onKeyDown={submitWithControlEnter}>
          <Fields />
          <div class="start">
            <EstimateLine />
            <button type="submit" class="primary" disabled={chosenModel() === undefined}>
              Generate
            </button>
          </div>
        </form>
        <JobPanel onAgain={() => void start()} />
      </div>
    </>
  );
}

function submitWithControlEnter(event: KeyboardEvent): void {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  (event.currentTarget as HTMLFormElement).requestSubmit();
}

function Fields() {
  const type = chosenType();
  const model = chosenModel();
  const preset = chosenPreset();
  const guidance = preset === undefined ? type?.guidanceScale : (preset.guidanceScale ?? 0);
  const side = { min: 64, max: 2048, step: model?.sizeMultiple || undefined };
  return (
    <>
      <label>
        Job type
        <select
          value={type?.name ?? ''}
          onChange={(event) => {
            form.jobType.value = event.currentTarget.value;
            form.loras.value = [];
            form.scheduler.value = '';
            form.samplingPreset.value = '';
          }}
        >
          {jobTypes().map(({ name }) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <PromptField />
      <label>
        Negative prompt
        <textarea
          rows={2}
          placeholder="the model's default"
          value={form.negative.value}
          onInput={(event) => {
            form.negative.value = event.currentTarget.value;
          }}
        />
      </label>
      <div class="row">
        <NumberField label="Width" value={form.width} placeholder={model?.nativeWidth} {...side} />
        <NumberField label="Height" value={form.height} placeholder={model?.nativeHeight} {...side} />
        <NumberField label="Steps" value={form.steps} placeholder={preset?.steps ?? type?.steps} min={1} max={1000} />
        <NumberField label="Guidance" value={form.guidance} placeholder={guidance} max={50} step={0.1} />
        <NumberField label="Seed" value={form.seed} placeholder="random" max={Number.MAX_SAFE_INTEGER} />
        {type?.makes === 'images' && (
          <SelectField label="Images" value={form.numImages}>
            {['1', '3', '6'].map((n) => (
              <option key={n}>{n}</option>
            ))}
          </SelectField>
        )}
        {type?.makes === 'video' && (
          <NumberField
            label="Frames"
            value={form.frames}
            placeholder={model?.nativeFrames}
            min={1}
            max={161}
            step={4}
          />
        )}
        <SelectField label="Scheduler" value={form.scheduler}>
          <option value="">the model's</option>
          {model?.schedulers?.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </SelectField>
        {model?.samplingPresets !== undefined && (
          <SelectField label="Sampling preset" value={form.samplingPreset}>
            <option value="">the server's</option>
            <option>none</option>
            {model.samplingPresets.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </SelectField>
        )}
      </div>
      <UpscaleFields />
      <LoraFields />
      <ReferenceFields />
    </>
  );
}
