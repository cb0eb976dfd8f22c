// Paper is white: a page in dark colours is printed in light ones.
{
  const root = document.documentElement;
  let onScreen = null;
  addEventListener("beforeprint", () => {
    onScreen ??= root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (onScreen) root.dataset.theme = onScreen;
    onScreen = null;
  });
}
