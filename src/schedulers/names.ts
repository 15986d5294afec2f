/** Sampler names from other projects: diffusers' class names, ComfyUI's and A1111's labels. */
const ALIASES: Readonly<Record<string, string>> = {
  eulerdiscretescheduler: 'euler',
  eulerkarras: 'euler_karras',
  eulerexponential: 'euler_exponential',
  eulera: 'euler_ancestral',
  eulerancestraldiscretescheduler: 'euler_ancestral',
  dpmsolvermultistepscheduler: 'dpmpp_2m',
  dpmpp2m: 'dpmpp_2m',
  dpmpp2mkarras: 'dpmpp_2m_karras',
  dpmpp2mexponential: 'dpmpp_2m_exponential',
  dpmpp2msde: 'dpmpp_2m_sde',
  dpmpp2msdegpu: 'dpmpp_2m_sde',
  dpmpp2msdekarras: 'dpmpp_2m_sde_karras',
  dpmpp3m: 'dpmpp_3m',
  dpmpp3msdegpu: 'dpmpp_3m_sde',
  dpmsolversdescheduler: 'dpmpp_sde',
  dpmppsdegpu: 'dpmpp_sde',
  heundiscretescheduler: 'heun',
  kdpm2discretescheduler: 'dpm2',
  dpm2karras: 'dpm2_karras',
  kdpm2ancestraldiscretescheduler: 'dpm2_ancestral',
  dpm2a: 'dpm2_ancestral',
  dpm2akarras: 'dpm2_ancestral_karras',
  lmsdiscretescheduler: 'lms',
  lmskarras: 'lms_karras',
  unipcmultistepscheduler: 'unipc',
  unipcbh2: 'unipc',
  pndmscheduler: 'pndm',
  plms: 'pndm',
  ddimscheduler: 'ddim',
  lcmscheduler: 'lcm',
  tcdscheduler: 'tcd',
  eulerbeta: 'euler_beta',
  dpmpp2mbeta: 'dpmpp_2m_beta',
  dpmpp2msdebeta: 'dpmpp_2m_sde_beta',
  // ComfyUI's and Forge's spacing from the last training timestep on: the same but for fractions of a timestep.
  eulersgmuniform: 'euler_trailing',
  eulerasgmuniform: 'euler_ancestral_trailing',
  eulerancestralsgmuniform: 'euler_ancestral_trailing',
  dpmpp2msgmuniform: 'dpmpp_2m_trailing',
  dpmpp3msdesgmuniform: 'dpmpp_3m_sde_trailing',
  dpmppsdesgmuniform: 'dpmpp_sde_trailing',
  unipcsgmuniform: 'unipc_trailing',
  ddimsgmuniform: 'ddim_trailing',
  lcmsgmuniform: 'lcm_trailing',
};

/**
 * The scheduler that a name means, whatever its case and punctuation: "DPM++ 2M Karras" is `dpmpp_2m_karras`.
 * @returns undefined for a name that means none
 */
export function schedulerNamed(
  name: string,
  known: readonly string[],
  aliases: Readonly<Record<string, string>> = ALIASES,
): string | undefined {
  const plain = squeeze(name);
  return (
    known.find((candidate) => squeeze(candidate) === plain) ?? known.find((candidate) => candidate === aliases[plain])
  );
}

function squeeze(name: string): string {
  return name
    .toLowerCase()
    .replaceAll('+', 'p')
    .replace(/[^a-z0-9]/g, '');
}
