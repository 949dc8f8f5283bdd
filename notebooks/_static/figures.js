/* Every figure opens large: a click, a tap or the Enter key shows it in a dialog, Escape or another click closes it. */
(() => {
  const FITS = 0.94, LARGEST = 2;  // of the window; times the figure's own size, as it is made of pixels

  const large = document.createElement("img");
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  const dialog = Object.assign(document.createElement("dialog"), { className: "figure-large" });
  dialog.setAttribute("aria-label", "Figure");
  dialog.append(close, large);
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);

  function open(image) {
    const { naturalWidth: width, naturalHeight: height } = image;
    const fits = Math.min((FITS * window.innerWidth) / width, (FITS * window.innerHeight) / height, LARGEST);
    Object.assign(large, { src: image.src, alt: image.alt });
    large.style.width = `${width * Math.max(fits, 1)}px`;  // on a phone its own size, and the dialog scrolls
    dialog.showModal();
    dialog.scrollTo(0, 0);
  }

  for (const image of document.querySelectorAll("article img")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "figure-open" });
    button.title = "Open large";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => open(image));
  }
})();
