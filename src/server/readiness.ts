import type { Engine } from '../engine/engine.js';
import { InferenceError } from '../errors.js';
import type { PromptEnhancer } from './enhance/prompt-enhancer.js';
import { type Admission, modelNotFound } from './jobs/admission.js';

export interface ReadinessOptions {
  readonly engines: readonly Engine[];
  readonly admission: Admission;
  readonly enhancer: PromptEnhancer | undefined;
}

/**
 * Says why a job would not be taken and run now; undefined if one would. A job that comes while its model loads is accepted
 * and waits, so the server is not ready for it.
 * @param model undefined: any model
 */
export function notReady(options: ReadinessOptions, model?: string): string | undefined {
  const { engines, admission, enhancer } = options;
  const residents = [...new Set(engines.map(({ spec }) => spec.model))];
  const models = [...residents, ...(enhancer === undefined ? [] : [enhancer.model])];
  try {
    admission.assertNotDraining();
    if (model === undefined) {
      // A language model alone serves Enhance calls.
      const asked = residents.length > 0 ? residents : models;
      const problems = asked.map((name) => notReady(options, name));
      return problems.includes(undefined) ? undefined : (problems[0] ?? 'the server has no model');
    }
    if (enhancer?.model === model) {
      enhancer.assertRoom();
      return undefined;
    }
    const states = engines.filter(({ spec }) => spec.model === model).map(({ state }) => state);
    if (states.length === 0) throw modelNotFound(model, models);
    admission.assertRoom(model);
    if (states.some((state) => state === 'ready' || state === 'busy')) return undefined;
    return `model ${model} is ${states.find((state) => state !== 'failed') ?? 'failed'}`;
  } catch (error) {
    return InferenceError.from(error).message;
  }
}
