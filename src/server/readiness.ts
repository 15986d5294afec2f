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
  const models = [...engines.map(({ spec }) => spec.model), ...(enhancer === undefined ? [] : [enhancer.model])];
  try {
    admission.assertNotDraining();
    if (model === undefined) {
      // A language model alone serves Enhance calls.
      const asked = engines.length > 0 ? engines.map(({ spec }) => spec.model) : models;
      const problems = asked.map((name) => notReady(options, name));
      return problems.includes(undefined) ? undefined : (problems[0] ?? 'the server has no model');
    }
    if (enhancer?.model === model) {
      enhancer.assertRoom();
      return undefined;
    }
    const engine = engines.find(({ spec }) => spec.model === model);
    if (engine === undefined) throw modelNotFound(model, models);
    admission.assertRoom(model);
    return engine.state === 'ready' || engine.state === 'busy' ? undefined : `model ${model} is ${engine.state}`;
  } catch (error) {
    return InferenceError.from(error).message;
  }
}
