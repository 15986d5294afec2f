import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { JobType, PromptSyntax } from '../../gen/darkroom/v1/job.js';
import { titlesOf } from '../../pipelines/family.js';
import type { PromptSyntax as PromptSyntaxName } from '../../pipelines/pipeline.js';
import { checkEnum } from './enum-values.js';
import { type Check, checkText } from './field-checks.js';
import type { RequestContext } from './request-context.js';

/** Prompt syntax of each value of the API. */
export const promptSyntaxes: Readonly<Record<number, PromptSyntaxName>> = {
  [PromptSyntax.PROMPT_SYNTAX_DIFFUSERS]: 'diffusers',
  [PromptSyntax.PROMPT_SYNTAX_PLAIN]: 'plain',
  [PromptSyntax.PROMPT_SYNTAX_WEIGHTED]: 'weighted',
};

/** Checks the texts of a request. @returns how its prompts are read */
export function planPrompt(
  request: GenerateRequest,
  { config, families, model: { family } }: RequestContext,
  check: Check,
): PromptSyntaxName {
  checkText('prompt', request.prompt, config.LIMIT_PROMPT_BYTES, check);
  checkText('negative_prompt', request.negativePrompt ?? '', config.LIMIT_PROMPT_BYTES, check);
  checkText('weights', request.weights, config.LIMIT_PROMPT_BYTES, check);
  const hasWeights = request.weights !== '';
  const takers = titlesOf(families, ({ takes }) => takes.weights);
  check(
    !hasWeights || family.takes.weights,
    'weights',
    `weights are for ${takers}; leave them out for ${family.title}`,
  );
  checkEnum(PromptSyntax, 'PromptSyntax', 'prompt_syntax', request.promptSyntax, check);
  const syntax = syntaxOf(request);
  check(
    !hasWeights || !family.takes.weights || syntax === 'weighted',
    'prompt_syntax',
    'prompt_syntax must be unset or PROMPT_SYNTAX_WEIGHTED where there are weights',
  );
  return syntax;
}

/** A caller without a job type means what diffusers means; job types promise that nothing is dropped. */
function syntaxOf({ promptSyntax, weights, jobType }: GenerateRequest): PromptSyntaxName {
  const unset = jobType === JobType.JOB_TYPE_UNSPECIFIED ? 'diffusers' : 'plain';
  return promptSyntaxes[promptSyntax] ?? (weights === '' ? unset : 'weighted');
}
