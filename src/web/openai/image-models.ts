import { InferenceError } from '../../errors.js';
import type { JobType } from '../../gen/darkroom/v1/job.js';
import type { Model } from '../../gen/darkroom/v1/model_service.js';
import { contractJobTypes, type JobTypeInfo } from '../../job-types.js';

/** A model in OpenAI's sense: a job type that makes images, or a model whose family makes several at once. */
export interface ImageModel {
  readonly id: string;
  readonly jobType: JobType;
  /** Name of the server's model; empty: that of the job type. */
  readonly model: string;
  /** Numbers of images that one job makes, the largest first. */
  readonly batches: readonly number[];
}

const BATCHES: Readonly<Record<JobTypeInfo['makes'], readonly number[]>> = { images: [6, 3, 1], image: [1], video: [] };

/** Names that OpenAI's clients send by default: they mean the server's first model. */
const OPENAI_NAMES = /^(dall-e-[23]|gpt-image-[\w.-]+|chatgpt-image-latest)$/;

/** The image models of a server: those of its job types, then the models by their own names. */
export function imageModels(models: readonly Model[]): readonly ImageModel[] {
  const types = [...contractJobTypes.values()].filter(
    ({ family, makes }) => makes !== 'video' && models.some((model) => model.family === family),
  );
  const byType = types.map(({ name, value, makes }) => ({
    id: name,
    jobType: value,
    model: '',
    batches: BATCHES[makes],
  }));
  const byName = models.flatMap(({ name, family }) => {
    const type = types.find((one) => one.family === family && one.makes === 'images');
    return type === undefined ? [] : [{ id: name, jobType: type.value, model: name, batches: BATCHES[type.makes] }];
  });
  return [...byType, ...byName];
}

/** @param id omitted, or a name of OpenAI's: the first. @throws InferenceError MODEL_NOT_FOUND with the names that there are */
export function findImageModel(models: readonly ImageModel[], id: string | undefined): ImageModel {
  const found = id === undefined || OPENAI_NAMES.test(id) ? models[0] : models.find((model) => model.id === id);
  if (found !== undefined) return found;
  const names = models.map((model) => model.id).join(', ');
  throw new InferenceError(
    'MODEL_NOT_FOUND',
    models.length === 0 ? 'the server has no model that makes images' : `model "${id}" must be one of ${names}`,
  );
}

/** Splits a number of images into jobs: 10 with batches of 6, 3 and 1 is 6, 3, 1. */
export function splitImages(n: number, batches: readonly number[]): readonly number[] {
  const jobs: number[] = [];
  for (let rest = n; rest > 0; rest -= jobs.at(-1) ?? rest) jobs.push(batches.find((size) => size <= rest) ?? 1);
  return jobs;
}
