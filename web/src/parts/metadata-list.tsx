import type { Asset, Metadata } from '../state/api';
import { bytes, jobTypeName, seconds } from '../state/formats';
import { type Fact, Facts } from './facts';

interface MetadataListProps {
  readonly metadata: Metadata;
  readonly asset: Asset | undefined;
}

function enlarged(upscale: Metadata['upscale']): string | undefined {
  if (upscale === undefined) return undefined;
  const { factor, upscaler, strength = 0 } = upscale;
  return `${factor} times with ${upscaler || 'Lanczos'}${strength > 0 ? `, drawn again at ${strength}` : ''}`;
}

/** What was really done. */
export function MetadataList({ metadata, asset }: MetadataListProps) {
  const { frames, fps, loras = [] } = metadata;
  const facts: readonly Fact[] = [
    ['Prompt', metadata.originalPrompt],
    ['Enhanced prompt', metadata.enhancedPrompt],
    ['Negative prompt', metadata.negativePrompt],
    ['Job type', jobTypeName(metadata.jobType)],
    ['Model', metadata.model],
    ['Size', `${asset?.width ?? metadata.width} × ${asset?.height ?? metadata.height}`],
    ['Frames', frames !== undefined && frames > 1 ? `${frames} at ${fps} per second` : undefined],
    ['Seed', asset?.seed ?? metadata.seed],
    ['Steps', metadata.steps],
    ['Guidance', metadata.guidanceScale],
    ['Scheduler', metadata.scheduler],
    ['Sampling preset', metadata.samplingPreset],
    ['LoRAs', loras.map(({ name, weight }) => `${name} (${weight ?? 1})`).join(', ')],
    ['Enlarged', enlarged(metadata.upscale)],
    ['Reference', metadata.referenceProblem ?? metadata.referenceMethod],
    ['Tokens', metadata.promptTokens],
    ['Note', metadata.promptProblem],
    ['Time', metadata.generationSeconds === undefined ? undefined : seconds(metadata.generationSeconds)],
    ['Device', metadata.device],
    ['Engine', metadata.engine === metadata.model ? undefined : metadata.engine],
    ['Out of memory', metadata.memoryMeasures?.map((name) => name.replaceAll('_', ' ')).join(', ')],
    ['File', asset === undefined ? undefined : `${asset.contentType}, ${bytes(asset.sizeBytes)}`],
  ];
  return <Facts facts={facts} />;
}
