import { signal } from '@preact/signals';
import type { JobType, Metadata, Model, SamplingPreset } from './api';
import { about, models } from './connection';
import { jobTypeName } from './formats';

export interface FormReference {
  readonly name: string;
  readonly base64: string;
  /** Media type. */
  readonly type: string;
  /** For the image or the video on the page. */
  readonly url: string;
}

/** `control`: the video that a video follows. */
export type ReferenceRole = 'single' | 'start' | 'end' | 'look' | 'mask' | 'control';

/** Fields of the form. Empty text: the server's default. */
export const form = {
  jobType: signal('sdxl_image_fast'),
  prompt: signal(''),
  negative: signal(''),
  width: signal(''),
  height: signal(''),
  steps: signal(''),
  guidance: signal(''),
  seed: signal(''),
  scheduler: signal(''),
  samplingPreset: signal(''),
  numImages: signal('1'),
  frames: signal(''),
  loras: signal<readonly { readonly name: string; readonly weight: number }[]>([]),
  references: signal<Readonly<Partial<Record<ReferenceRole, FormReference>>>>({}),
  strength: signal(''),
  /** How often larger the result is; empty: as large as the fields above say. */
  enlarge: signal(''),
  upscaler: signal(''),
  redraw: signal(''),
  /** What the user must add to run a job again; empty: nothing. */
  note: signal(''),
};

export function jobTypes(): readonly JobType[] {
  const all = about.value?.jobTypes ?? [];
  return all.filter(({ family }) => models.value.some((model) => model.family === family));
}

/** The chosen job type, or the first that the server can run. */
export function chosenType(): JobType | undefined {
  const types = jobTypes();
  return types.find(({ name }) => name === form.jobType.value) ?? types[0];
}

/** The model that runs the chosen job type. */
export function chosenModel(): Model | undefined {
  const type = chosenType();
  return models.value.find(({ family }) => family === type?.family);
}

/** True if Tokenize works for the chosen job type: a type that makes several images takes weights. */
export function takesWeights(): boolean {
  return chosenType()?.makes === 'images';
}

const optional = (text: string) => (text.trim() === '' ? undefined : Number(text));

/** The chosen settings of a distilled model, or those that the operator chose. */
export function chosenPreset(): SamplingPreset | undefined {
  const wanted = form.samplingPreset.value;
  return chosenModel()?.samplingPresets?.find(({ name, isDefault }) =>
    wanted === '' ? isDefault === true : name === wanted,
  );
}

/** True if a part of the reference can be drawn anew. */
export function takesMask(): boolean {
  return chosenType()?.makes === 'images';
}

/** True if the chosen model follows a control video. */
export function takesControlVideo(): boolean {
  return chosenModel()?.takes?.includes('control_video') ?? false;
}

/** Roles of a video's references: those that the chosen model takes, or both ends until it has said so. */
export function videoRoles(): readonly ReferenceRole[] {
  const taken = chosenModel()?.referenceRoles ?? ['REFERENCE_ROLE_START', 'REFERENCE_ROLE_END'];
  return (['start', 'end', 'look'] as const).filter((role) => taken.includes(`REFERENCE_ROLE_${role.toUpperCase()}`));
}

/** True if the chosen model can enlarge its results. */
export function takesUpscale(): boolean {
  return chosenModel()?.takes?.includes('upscale') ?? false;
}

/** The job as the gateway takes it. */
export function requestOf(): Record<string, unknown> {
  const type = chosenType();
  const isVideo = type?.makes === 'video';
  const { mask, control, ...images } = form.references.value;
  const roles: readonly string[] = isVideo ? videoRoles() : ['single'];
  const references = Object.entries(images).filter(([role]) => roles.includes(role));
  const isMasked = mask !== undefined && images.single !== undefined && takesMask();
  const strength = optional(form.strength.value);
  return {
    jobType: type?.name,
    prompt: form.prompt.value,
    ...(form.negative.value !== '' && { negativePrompt: form.negative.value }),
    ...(takesWeights() && { promptSyntax: 'weighted' }),
    width: optional(form.width.value),
    height: optional(form.height.value),
    steps: optional(form.steps.value),
    guidanceScale: optional(form.guidance.value),
    ...(form.seed.value.trim() !== '' && { seed: form.seed.value.trim() }),
    ...(form.scheduler.value !== '' && { scheduler: form.scheduler.value }),
    ...(form.samplingPreset.value !== '' && { samplingPreset: form.samplingPreset.value }),
    ...(type?.makes === 'images' && { numImages: Number(form.numImages.value) }),
    ...(isVideo && { frames: optional(form.frames.value) }),
    loras: form.loras.value,
    ...(form.enlarge.value !== '' &&
      takesUpscale() && {
        upscale: {
          factor: Number(form.enlarge.value),
          upscaler: form.upscaler.value,
          strength: optional(form.redraw.value),
        },
      }),
    ...(control !== undefined && isVideo && takesControlVideo() && { controlVideo: { video: control.base64 } }),
    ...(isMasked && { mask: { image: mask.base64, blur: 4 } }),
    references: references.map(([role, { base64 }]) => ({
      image: base64,
      ...(role !== 'single' && { role }),
      ...(strength !== undefined && { strength }),
    })),
  };
}

/** Fills the form with what a job really used, so that the same job runs again. @param seed of one of its images */
export function fillFrom(metadata: Metadata, seed: string | undefined): void {
  const text = (value: number | string | undefined) => (value === undefined ? '' : String(value));
  form.jobType.value = jobTypeName(metadata.jobType) || form.jobType.value;
  form.prompt.value = metadata.originalPrompt ?? '';
  form.negative.value = metadata.negativePrompt ?? '';
  const { upscale } = metadata;
  const before = (pixels: number | undefined) => pixels && Math.round(pixels / (upscale?.factor ?? 1));
  form.width.value = text(before(metadata.width));
  form.height.value = text(before(metadata.height));
  form.enlarge.value = text(upscale?.factor);
  form.upscaler.value = upscale?.upscaler ?? '';
  form.redraw.value = text(upscale?.strength);
  form.steps.value = text(metadata.steps);
  form.guidance.value = text(metadata.guidanceScale);
  form.scheduler.value = metadata.scheduler ?? '';
  form.samplingPreset.value = metadata.samplingPreset ?? '';
  form.seed.value = seed ?? text(metadata.seed);
  form.numImages.value = '1';
  form.frames.value = chosenType()?.makes === 'video' ? text(metadata.frames) : '';
  form.note.value =
    metadata.referenceMethod !== undefined && Object.keys(form.references.value).length === 0
      ? 'This job had a reference, which the server does not keep. Choose it again.'
      : '';
  form.loras.value = (metadata.loras ?? []).map(({ name, weight }) => ({ name, weight: weight ?? 1 }));
}

/** Media types that a role takes. */
export function acceptedTypes(role: ReferenceRole): readonly string[] {
  return role === 'control' ? ['video/mp4', 'video/webm', 'image/gif'] : ['image/png', 'image/jpeg', 'image/webp'];
}

/** Reads a file that was chosen or dropped. @throws Error in words */
export async function readReference(file: Blob, name: string, role: ReferenceRole): Promise<FormReference> {
  if (!acceptedTypes(role).includes(file.type)) {
    const wanted = role === 'control' ? 'MP4, WebM or GIF' : 'PNG, JPEG or WebP image';
    throw new Error(`"${name}" is no ${wanted}.`);
  }
  const data = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error(`"${name}" cannot be read.`));
    reader.readAsDataURL(file);
  });
  // The page's policy plays blobs alone.
  const url = file.type.startsWith('video/') ? URL.createObjectURL(file) : data;
  return { name, base64: data.slice(data.indexOf(',') + 1), type: file.type, url };
}
