/* Search runs in a worker. Browsers start none for a page that was opened from a folder, without a server: there a
   hidden frame stands in for it. A frame shares the page's origin, so that the two may call each other. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script>postMessage = data => frameElement.answer(data)</script><script src="${url}"></script>`
      frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame = frame
      this.loaded = new Promise(resolve => frame.addEventListener("load", resolve))
      document.body.append(frame)
    }
    async postMessage(data) {
      await this.loaded
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
