// The slider over the targets: shows their error rates, and moves the line of the picture.

const section = document.querySelector("[data-threshold]");
const find = (name) => document.querySelector(`[data-${name}]`);

function percent(share) {
  if (share === null) return "–";
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : Number(value.toPrecision(2))} %`;
}

if (section) {
  const steps = JSON.parse(section.dataset.steps);
  const slider = document.getElementById("slider");
  const field = document.getElementById("percent");

  const nearest = (target) =>
    steps.reduce((best, step, place) => {
      const distance = (one) => Math.abs(Math.log(one.target_fpir / target));
      return distance(step) < distance(steps[best]) ? place : best;
    }, 0);

  const show = () => {
    const step = steps[Number(slider.value)];
    find("fpir").textContent = percent(step.target_fpir);
    find("fnir").textContent = percent(step.fnir);
    find("counts").textContent =
      `${step.strangers} of ${section.dataset.callers} left-out strangers accepted, LLR from ${step.llr.toFixed(1).replace("-", "−")}`;
    slider.setAttribute("aria-valuetext", percent(step.target_fpir));
    find("line").setAttribute("x1", `${step.x}%`);
    find("line").setAttribute("x2", `${step.x}%`);
    find("line").setAttribute("visibility", "visible");
    find("line-legend").hidden = false;
  };

  find("slider").hidden = false;
  slider.value = nearest(Number(field?.value ?? 1) / 100);
  slider.addEventListener("input", () => {
    if (field) field.value = Number((100 * steps[Number(slider.value)].target_fpir).toPrecision(4));
    show();
  });
  field?.addEventListener("change", () => {
    const target = Number(field.value.replace(",", ".")) / 100;
    if (target > 0 && target < 1) {
      slider.value = nearest(target);
      show();
    }
  });
  show();
}
